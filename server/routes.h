// The routes' functions, listed in routes.cc.
#pragma once

#include "server/app.h"

namespace lutra::server {

void ChatCompletions(Call& call);
void Completions(Call& call);
void Embeddings(Call& call);
void ListModels(Call& call);
void ShowModel(Call& call);
void Health(Call& call);
void Metrics(Call& call);
void Version(Call& call);
void Tokenize(Call& call);
void Detokenize(Call& call);
void ApplyTemplate(Call& call);
void Props(Call& call);
void Slots(Call& call);
void Page(Call& call);

}  // namespace lutra::server
