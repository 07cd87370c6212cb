// The sigmoid loss and its gradients on GPUs, in one sweep over chunks of images.
//
// Floor: three products of n · m · width multiply-adds (one for the loss alone), 9.4 ms for n = m = 32768, width = 1152
// at 790 TFLOP/s. Everything else is smaller: exponentials are 2 n m of the special function unit, a tenth of that
// time.
//
// Plan: for each chunk of images, at most 1024 and as many as have slopes of 64 MB (1024 of 32768 in bfloat16),
//
//   slopes = n · g                    a product of images and texts whose epilogue (sigmoid_loss_epilogue.cuh) turns
//                                     logits into slopes and adds up losses: a block's sums go to its place in a list
//   grad_images = t/n · slopes · texts          of the chunk
//   grad_texts += t/n · slopesᵀ · images        over the chunk
//
// And last the sums of all blocks, in order. In bfloat16, where there is cuBLASLt, it makes all three products, the
// first of strips of texts whose products stay in the L2: a kernel of its own makes slopes of them
// (loss_of_products_kernel). Slopes have the type of the inputs. They are from −1 to 1: not divided by n, small ones do
// not underflow. The chunk is a compromise: its slopes are written and read twice, mostly in the L2, and grad_texts is
// read and written once for each chunk (n/1024 · 8 · m · width bytes, 9.7 GB at n = m = 32768: 2.3 ms of memory
// behind 9.4 ms of products). There is no matrix of all pairs: with the parts of grad_images (matrix_sum.cuh) scratch
// memory is below 90 MB at n = 32768, and with cuBLASLt's strip and its workspace 64 MB more. The workspace in the
// arguments is not used. Lists of positives go to scratch memory whole.
//
// Float32 inputs: products are sums of pairs of float32 (matrix_product_float.cuh), logits double.
#include "ops/sigmoid_loss/sigmoid_loss.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "cuda/cublaslt.h"
#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/matrix_sum.cuh"
#include "ops/sigmoid_loss/sigmoid_loss_epilogue.cuh"

namespace siglip2::cuda {
namespace {

constexpr int kSumThreads = 256;
constexpr std::int64_t kMostImages = 1024;                   // of a chunk
constexpr std::int64_t kMostBytes = std::int64_t{64} << 20;  // of its slopes
constexpr std::int64_t kStripTexts = 8192;                   // whose products with a chunk are 32 MB

// Of a block that makes slopes of products.
constexpr int kNeighbours = 8;  // pairs that a thread has at once
constexpr int kBlockColumns = 64 * kNeighbours;
constexpr int kBlockRows = 32;
constexpr int kProductThreads = 256;

// The sums of `count` blocks, in an order that count alone decides.
__global__ void __launch_bounds__(kSumThreads)
    sum_blocks_kernel(const LossSums* blocks, std::int64_t count, LossSums* total) {
  double sums[3] = {};
  for (std::int64_t i = threadIdx.x; i < count; i += kSumThreads) {
    sums[0] += blocks[i].loss;
    sums[1] += blocks[i].slope;
    sums[2] += blocks[i].scaled;
  }
  block_sum(sums, reinterpret_cast<double*>(shared_memory()));
  if (threadIdx.x == 0) *total = {sums[0], sums[1], sums[2]};
}

// Slopes and sums of the pairs of some images with a strip of texts, whose products are there: products[row][column -
// first_column] for columns from first_column on. `epilogue` counts images from row 0 and all texts.
template <typename Epilogue>
__global__ void __launch_bounds__(kProductThreads)
    loss_of_products_kernel(const float* products, std::int64_t product_stride, std::int64_t rows,
                            std::int64_t first_column, std::int64_t columns, std::int64_t column_blocks,
                            Epilogue epilogue) {
  constexpr int kRowThreads = kBlockColumns / kNeighbours;
  const std::int64_t index = blockIdx.x, block_row = index / column_blocks * kBlockRows;
  const std::int64_t local = index % column_blocks * kBlockColumns + threadIdx.x % kRowThreads * kNeighbours;
  epilogue.start({block_row, first_column + local, index, 0});
  const auto shared = epilogue.template columns<kNeighbours>(first_column + local);
  // Columns beyond the strip's are beyond the last text, too: they are taken as 0, and nothing is stored for them.
  const std::int64_t end = block_row + kBlockRows < rows ? block_row + kBlockRows : rows;
  for (std::int64_t row = block_row + threadIdx.x / kRowThreads; row < end; row += kProductThreads / kRowThreads) {
    float values[kNeighbours];
    load_values(products + row * product_stride + local, values, true, columns - local);
    epilogue.template row<kNeighbours>(shared, row, first_column + local, values);
  }
  epilogue.finish(reinterpret_cast<unsigned char*>(shared_memory()));
}

// Images of a chunk: a multiple of the tiles' 128, chunks of even height.
std::int64_t rows_of_chunk(std::int64_t n, std::int64_t row_bytes) {
  const std::int64_t most = std::clamp<std::int64_t>(kMostBytes / row_bytes / 128 * 128, 128, kMostImages);
  return round_up(divide_up(n, divide_up(n, most)), 128);
}

// Terms of a product that are summed in float32: fewer where a row of unit length has few of them, which are large.
int stretch_of(std::int64_t width) {
  return static_cast<int>(std::bit_floor(static_cast<std::uint64_t>(std::clamp<std::int64_t>(width / 12, 1, 64))));
}

std::int64_t column_blocks_of(std::int64_t columns) {
  return divide_up(columns, kBlockColumns);
}

// Blocks of loss_of_products_kernel for a chunk.
std::int64_t product_blocks_of_chunk(std::int64_t images, std::int64_t texts) {
  const std::int64_t strips = texts / kStripTexts, rest = texts % kStripTexts;
  return divide_up(images, kBlockRows) * (strips * column_blocks_of(kStripTexts) + column_blocks_of(rest));
}

// As multiply_chunk, with products by cuBLASLt in `products` [images, kStripTexts at most]. False when it cannot do
// them all; then nothing that has been written counts.
template <typename Epilogue>
bool multiply_strips(OpContext& context, const ConstMatrixView& images, const ConstMatrixView& texts,
                     const MatrixView& products, Epilogue epilogue, const std::array<Access, 4>& touched) {
  for (std::int64_t first = 0; first < texts.rows; first += kStripTexts) {
    const std::int64_t count = std::min(kStripTexts, texts.rows - first);
    const MatrixView strip = {products.data, products.dtype, images.rows, count, products.stride};
    const ConstMatrixView part = {texts.as<std::uint16_t>() + first * texts.stride, texts.dtype, count, texts.columns,
                                  texts.stride};
    if (!matmul(context, {images, part, false, false, nullptr, false, {}, strip})) return false;
    const std::int64_t column_blocks = column_blocks_of(count);
    const std::int64_t blocks = divide_up(images.rows, kBlockRows) * column_blocks;
    launch(context, "sigmoid_loss", loss_of_products_kernel<Epilogue>,
           {blocks, kProductThreads, kProductThreads / kWarpSize * sizeof(LossSums)},
           {reads(strip), touched[0], touched[1], touched[2], touched[3]}, strip.as<float>(), strip.stride, images.rows,
           first, count, column_blocks, epilogue);
    epilogue.block_sums += blocks;
  }
  return true;
}

template <typename T>
std::int64_t blocks_of_chunk(std::int64_t images, std::int64_t texts, std::int64_t width) {
  const ProductSize size = {images, texts, width};
  return sizeof(T) == 2 ? tile_count(size) : pair_tile_count(size);
}

// Slopes of a chunk of images, and the sums of its blocks.
template <typename T, typename Pairs>
void multiply_chunk(OpContext& context, const ConstMatrixView& images, const Operand<T>& texts, std::int64_t text_count,
                    const LossEpilogue<T, Pairs>& epilogue, const std::array<Access, 4>& touched) {
  const ProductSize size = {images.rows, text_count, images.columns};
  if constexpr (sizeof(T) == 2) {
    multiply_matrices<false, false>(context, "sigmoid_loss", size, make_operand<T>(images), texts, epilogue, touched);
  } else {
    multiply_pairs<false, false>(context, "sigmoid_loss", size, make_operand<T>(images), texts,
                                 stretch_of(images.columns), epilogue, touched);
  }
}

// result = factor · slopes · b, or slopesᵀ · b; added to what is there if `accumulate`. Slopes have columns beyond the
// last text, of zeros, so that rows are aligned; texts beyond the last are taken as 0.
template <bool kTransposed, typename T>
void multiply_slopes(OpContext& context, const ConstMatrixView& slopes, const ConstMatrixView& b,
                     const MatrixView& result, float factor, bool accumulate) {
  if constexpr (sizeof(T) == 2) {
    const ConstMatrixView before = accumulate ? ConstMatrixView(result) : ConstMatrixView();
    ConstMatrixView there = slopes;
    there.columns = kTransposed ? result.rows : b.rows;
    if (matmul(context, {there, b, kTransposed, true, nullptr, false, before, result, factor})) return;
  }
  multiply_into<kTransposed, true>(context, "sigmoid_loss", make_operand<T>(slopes), make_operand<T>(b), b.rows, result,
                                   factor, accumulate);
}

template <typename T>
void run(OpContext& context, const SigmoidLossArgs& args) {
  const char* const name = "sigmoid_loss";
  const std::int64_t n = args.images.rows, m = args.texts.rows, width = args.images.columns;
  const bool gradients = args.grad_images.data != nullptr;
  const double scale = std::exp(args.logit_scale);
  const auto factor = static_cast<float>(scale / static_cast<double>(n));
  const std::int64_t stride = round_up(m, 8);
  const std::int64_t chunk = rows_of_chunk(n, stride * static_cast<std::int64_t>(sizeof(T)));
  const Operand<T> texts = make_operand<T>(args.texts);

  Scratch scratch(context);
  const bool strips = sizeof(T) == 2 && matmul_available(context);
  std::int64_t blocks = 0;
  for (std::int64_t first = 0; first < n; first += chunk) {
    const std::int64_t images = std::min(chunk, n - first), own = blocks_of_chunk<T>(images, m, width);
    blocks += strips ? std::max(own, product_blocks_of_chunk(images, m)) : own;
  }
  const std::int64_t strip_stride = std::min(stride, kStripTexts);
  float* const products = strips ? scratch.allocate<float>(std::min(chunk, n) * strip_stride) : nullptr;
  LossSums* const block_sums = scratch.allocate<LossSums>(blocks);
  LossSums* const total = scratch.allocate<LossSums>(1);
  T* const slopes = gradients ? scratch.allocate<T>(std::min(chunk, n) * stride) : nullptr;
  const bool listed = args.positives.offsets != nullptr;
  const std::int64_t positives = listed ? args.positives.offsets[n] : 0;
  const std::int32_t* const offsets = scratch.upload(args.positives.offsets, n + 1);
  const std::int32_t* const positive_texts = positives == 0 ? nullptr : scratch.upload(args.positives.texts, positives);

  LossSums* next_sums = block_sums;
  for (std::int64_t first = 0; first < n; first += chunk) {
    const std::int64_t images = std::min(chunk, n - first);
    std::int64_t chunk_blocks = blocks_of_chunk<T>(images, m, width);
    const ConstMatrixView chunk_images = {args.images.as<T>() + first * args.images.stride, args.images.dtype, images,
                                          width, args.images.stride};
    const MatrixView chunk_slopes = {slopes, args.images.dtype, images, stride, stride};
    const auto multiply = [&](const auto& pairs) {
      using Epilogue = LossEpilogue<T, std::decay_t<decltype(pairs)>>;
      using Number = typename Epilogue::Number;
      const Epilogue epilogue = {
          slopes,   stride, pairs, images, m, static_cast<Number>(scale), static_cast<Number>(args.logit_bias),
          next_sums};
      const auto touched = [&](std::int64_t sums) -> std::array<Access, 4> {
        return {writes(chunk_slopes), writes(next_sums, sums), reads(offsets, n + 1), reads(positive_texts, positives)};
      };
      if constexpr (sizeof(T) == 2) {
        const std::int64_t strip_blocks = product_blocks_of_chunk(images, m);
        const MatrixView strip = {products, DType::kFloat32, images, strip_stride, strip_stride};
        if (strips && multiply_strips(context, chunk_images, args.texts, strip, epilogue, touched(strip_blocks))) {
          chunk_blocks = strip_blocks;
          return;
        }
      }
      multiply_chunk(context, chunk_images, texts, m, epilogue, touched(chunk_blocks));
    };
    if (listed) {
      multiply(ListedPairs{offsets + first, positive_texts});
    } else {
      multiply(DiagonalPairs{first});
    }
    next_sums += chunk_blocks;
    if (!gradients) continue;
    multiply_slopes<false, T>(context, chunk_slopes, args.texts, args.grad_images.slice_rows(first, images), factor,
                              false);
    multiply_slopes<true, T>(context, chunk_slopes, chunk_images, args.grad_texts, factor, first > 0);
  }
  launch(context, name, sum_blocks_kernel, {1, kSumThreads, kSumThreads / kWarpSize * sizeof(LossSums)},
         {reads(block_sums, next_sums - block_sums), writes(total, 1)}, block_sums, next_sums - block_sums, total);
  LossSums sums = {};
  scratch.download(&sums, total, 1);
  const double count = static_cast<double>(n);
  args.result->loss = sums.loss / count;
  args.result->grad_logit_scale = gradients ? scale * sums.scaled / count : 0;
  args.result->grad_logit_bias = gradients ? sums.slope / count : 0;
}

}  // namespace

void sigmoid_loss_cuda(OpContext& context, const SigmoidLossArgs& args) {
  with_activation_type(args.images.dtype, [&](auto type) { run<decltype(type)>(context, args); });
}

}  // namespace siglip2::cuda
