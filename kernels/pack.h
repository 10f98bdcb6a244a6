// Repacking GGUF rows into panels (kernels/panel.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/quant_format.h"

namespace lutra {

// What a format's panels are like and how to fill one.
struct Packer {
  Activations activations;
  size_t (*panel_bytes)(size_t n_cols);
  const uint8_t* table;  // [64]
  // Packs rows [first_row, first_row + 16) (fewer at the end: the rest become zero rows) into `panel`, panel_bytes(n_cols) bytes.
  // `rows` are all n_rows rows as in the file. Disjoint panels may be packed concurrently.
  void (*pack)(const uint8_t* rows, size_t n_rows, size_t n_cols, size_t first_row, uint8_t* panel);
};

// nullptr if the id is no quantized format.
const Packer* FindPacker(uint32_t type_id);

}  // namespace lutra
