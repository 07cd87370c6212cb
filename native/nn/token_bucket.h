// How many rows a pass computes for a batch of ragged sequences on a device that knows repeated work again
// (OpTable::begin_pass). Two batches of as many sequences and one bucket ask such a device for the same work from the
// first block of the encoder to the pooled features, whatever the lengths of their sequences.
#pragma once

#include <cstdint>

#include "nn/encoder_block.h"

namespace siglip2 {

// Batches of more tokens are taken as they are: their work keeps a device busy while the host asks for more.
inline constexpr std::int64_t kMostBucketTokens = 4096;

struct TokenBucket {
  std::int64_t rows;          // at least the tokens
  std::int64_t length_bound;  // at least the longest sequence; 0: the batch is taken as it is
};

// Rows are the tokens rounded up: to a multiple of 16 up to 256, beyond in 8 steps from each power of two to the next,
// so that from 128 tokens on rows exceed tokens by less than an eighth, and on average by a twenty-fourth. The bound of
// lengths is a power of two, 64 or more.
TokenBucket token_bucket(const Offsets& offsets);

}  // namespace siglip2
