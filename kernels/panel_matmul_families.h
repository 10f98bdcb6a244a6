// The families of panel kernels: one file each, so that they build in parallel and one edit rebuilds one family.
#pragma once

#include "kernels/panel_matmul.h"

namespace lutra {

PanelMatMulFn FindLegacyPanelMatMul(uint32_t type_id, bool dot4);
PanelMatMulFn FindKPanelMatMul(uint32_t type_id, bool dot4);
PanelMatMulFn FindIqkPanelMatMul(uint32_t type_id, bool dot4);
PanelMatMulFn FindCodebookPanelMatMul(uint32_t type_id, bool dot4);  // and trellis, ternary

}  // namespace lutra
