// The tensor types that make a file of a given size with the least expected loss.
//
// For every tensor and candidate type the relative error of its products is measured on a sample of its rows,
// sum importance * (w - w')^2 / sum importance * w^2, once. Errors of tensors add up in the model's output to a good approximation
// (Malinovskii and others, "Pushing the limits of LLM quantization via the linearity theorem", 2024), each with a factor that
// depends on what the tensor does. Then types are bought where a byte lowers the sum most, until the bytes are spent.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/parallel.h"
#include "models/gguf.h"
#include "models/quantizer.h"

namespace lutra {

// "3.5" or "3.5bpw": bits a weight; "4G", "4GB", "3.8GiB", "500M", "500MiB", "4000000000": the size of the file, of which `beside` bytes
// are not tensors (BytesBesideTensors). Gives bytes of tensors. Throws Error(kInvalidArgument).
uint64_t ParseTargetSize(const std::string& text, uint64_t n_weights, uint64_t beside);

// At most what a file quantized from this one holds beside its tensors: metadata, what quantizing adds to it, padding.
uint64_t BytesBesideTensors(const GgufFile& file);

// KL divergence of the output over relative error, by tensor (engine/sensitivity.h).
using Sensitivities = std::map<std::string, double, std::less<>>;

// Measures and chooses. Tensors that options give a type (tensor_types, output_type, embedding_type) keep it.
//   sensitivities  measured ones, or nullptr: what such tensors have on the demo model.
//   types  candidates; those that do not fit a tensor's rows are left out for it. Empty: all IQK types, Q6_0 and Q8_0.
// Calls progress(done, all) on the calling thread. Throws as PlanQuantize does, and Error(kInvalidArgument) if even the smallest
// candidates do not fit (naming the least size).
QuantizePlan PlanForTarget(const GgufFile& file, const QuantizeOptions& options,
                           uint64_t target_bytes, std::span<const TensorTypeInfo* const> types,
                           const Sensitivities* sensitivities, ThreadPool* pool,
                           const std::function<void(size_t done, size_t all)>& progress);

// One rule a tensor that is quantized, "^name$=TYPE", as --tensor-type reads them from a file.
std::string RecipeText(const QuantizePlan& plan);

}  // namespace lutra
