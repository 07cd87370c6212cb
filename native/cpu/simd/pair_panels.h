// Panels of pairs (cpu/simd/pair_tile.h) of matrices whose rows are the depth of the product: neighbouring rows make
// the pairs, rounded to bfloat16 as they are packed. An odd number of rows is followed by one of zeros.
#pragma once

#include "cpu/simd/pair_tile.h"

namespace siglip2::SIGLIP2_ISA {

// Lays `columns` columns of `depth` rows out as panels for `a` of a tile, in which they are rows, in pair_format() with
// anything beyond the last column. `readable` values of a row may be read, at least `columns` of them. The sum of every
// column, as it is in memory, is added to `sums`, unless that is null; values up to the next multiple of kLanes with
// it.
void pack_transposed_pair_rows(const Operand& source, std::int64_t depth, std::int64_t columns, std::int64_t readable,
                               float* panels, float* sums);

// Lays `columns` columns of `depth` rows out as panels for `b` of a tile, [⌈columns/kTileColumns⌉][units]
// [kTileColumns]; columns that are not there, and units behind the last pair, are 0. With `gelu`, of GELU of the
// source.
void pack_pair_columns(const Operand& source, std::int64_t depth, std::int64_t columns, bool gelu, float* panels);

// Joins the `depth` rows of one panel, [depth][kTileColumns] of float32, in place into such a panel for `b`: [units]
// [kTileColumns], with zeros from the last row on.
void join_panel_rows(float* panel, std::int64_t depth, std::int64_t units);

}  // namespace siglip2::SIGLIP2_ISA
