// Pixels to patch tokens on GPUs.
//
// patchify_images resizes, normalises and cuts any number of images of any sizes in one launch.
//
// Floor, 1024 × 768 pixels → 288 × 224 (252 patches of 16): 2.36 MB read, 0.39 MB written in bfloat16: 0.8 µs of an
// H100's 3.3 TB/s. Products with weights: 768 · 288 · 3 · 7.1 horizontally, 224 · 288 · 3 · 7.1 vertically, 6.1
// million; done one by one, with the unpacking of bytes, they would take three times as long as the memory.
//
// Plan. A block of 128 threads makes a tile of at most 128 output columns of a strip of output rows, in steps of up to
// 16 rows. For each step it brings in the source rows that are still missing, four (one group) to 16 at a time:
//
//   global ──16-byte loads, moved to whole words──▶ staged rows ──horizontal filter──▶ ring ──vertical filter,
//   normalisation──▶ rows of tokens
//
//   * Weights come in groups of four source positions, for both passes. In Pillow's arithmetic (kPil) a weight has 24
//     bits with its sign, kept as three planes of bytes: an instruction multiplies four pixels with a plane and sums
//     (dp4a), so a product costs 0.75 instructions and its bytes are never widened.
//   * Horizontally a thread makes one column of four rows, all colours: weights are read once for four rows, three
//   words
//     hold four pixels, and six byte permutations bring each colour's four bytes together. The result, four rows of a
//     value, is one word of the ring: just what the vertical pass multiplies, and in the order of the output.
//   * Vertically a thread makes as many neighbouring values as 16 bytes of output hold, where patches divide so.
//   * Normalised values of bytes come from a table in shared memory, computed on the host in double (kPil).
//   * Strips are so high that at most 15 % of source rows are read by two of them (but at most 64 rows high).
//
// kFloat is the same with float32 sums: the ring holds four float32 for a value of four rows.
//
// Shared memory: 48 KB at most. The host chooses each image's width of tiles, rows of a step and staged groups to fit;
// images shrunk so far that nothing fits (over some 200 times) go to a second kernel, a warp a pixel, unstaged.
#include <cstdint>
#include <deque>
#include <vector>

#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/prim/launch.h"
#include "cuda/runtime.h"
#include "cuda/scratch.h"
#include "cuda/table_pack.h"
#include "ops/patchify/patchify_jobs.h"
#include "ops/patchify/patchify_strips.cuh"

namespace siglip2::cuda {
namespace {

template <typename Arithmetic, typename T>
auto strips_kernel(const PatchifyImagesArgs& args) {
  const std::int64_t run = args.layout == PixelLayout::kPatches ? 3 * args.patch_size : args.target_sizes[1];
  const auto whole = [&](int values) {
    return run % values == 0 && rows_aligned(args.output.data, args.output.stride, sizeof(T), values * sizeof(T));
  };
  if (whole(kWidest<T>)) return patchify_strips_kernel<Arithmetic, T, kWidest<T>>;
  if (whole(2)) return patchify_strips_kernel<Arithmetic, T, 2>;
  return patchify_strips_kernel<Arithmetic, T, 1>;
}

// The tables of the kernels on the device.
struct DeviceTables {
  const unsigned char* pixels;
  const PatchifyImage* images;
  const PatchifyJob* strips;
  const PatchifyJob* far_pixels;
  const PatchifyTaps* taps;
  const PatchifyWeights* weights;
  const float* normalization;
};

template <typename Arithmetic, typename T>
void start(OpContext& context, const PatchifyImagesArgs& args, const PatchifyJobs& work, const DeviceTables& tables) {
  const auto size = [](const auto& table) { return static_cast<std::int64_t>(table.size()); };
  const PatchifyOutput<T> output = {args.output.as<T>(), args.output.stride,
                                    args.layout == PixelLayout::kPatches ? args.patch_size : 0};
  const auto launch_kernel = [&](const char* name, auto kernel, const PatchifyJob* jobs, std::int64_t count,
                                 std::int64_t shared_bytes) {
    std::vector<Access> accesses = {reads(tables.images, size(work.images)),
                                    reads(jobs, count),
                                    reads(tables.taps, size(work.taps)),
                                    reads(tables.weights, size(work.weights)),
                                    reads(tables.normalization, size(work.normalization)),
                                    writes(args.output)};
    for (const PatchifyImage& image : work.images)
      accesses.push_back(reads(tables.pixels + image.pixels, image.bytes));
    launch(context, name, kernel, {count, kPatchifyThreads, static_cast<std::size_t>(shared_bytes)}, accesses,
           tables.pixels, tables.images, jobs, tables.taps, tables.weights, tables.normalization, output);
  };
  launch_kernel("patchify_strips", strips_kernel<Arithmetic, T>(args), tables.strips, size(work.strips),
                work.shared_bytes);
  launch_kernel("patchify_far", patchify_far_kernel<Arithmetic, T>, tables.far_pixels, size(work.far_pixels), 0);
}

// The arguments, with those images of the device's memory that are filtered vertically first copied to the host, where
// that is done: they are rare, and small.
class HostForTall {
 public:
  HostForTall(OpContext& context, const PatchifyImagesArgs& args)
      : args_(args), images_(args.images, args.images + args.count) {
    for (std::int64_t i = 0; i < args.count; ++i) {
      ImageView& image = images_[static_cast<std::size_t>(i)];
      if (!image.on_device || !is_vertical_first(args, i)) continue;
      image.on_device = false;
      if (context.planning) continue;
      auto& pixels = pixels_.emplace_back(static_cast<std::size_t>(image.width * image.height * image.channels));
      runtime::copy_to_host(context, pixels.data(), image.data, pixels.size());
      image.data = pixels.data();
    }
    args_.images = images_.data();
  }
  const PatchifyImagesArgs& args() const { return args_; }

 private:
  PatchifyImagesArgs args_;
  std::vector<ImageView> images_;
  std::deque<std::vector<std::uint8_t>> pixels_;
};

// Copies what is not there yet to the device, into one piece of memory, and tells the images where their pixels are: as
// distances from that memory, which is returned, because a pointer that a kernel gets as a parameter is known to be one
// to global memory.
const unsigned char* place_pixels(OpContext& context, Scratch& scratch, const PatchifyImagesArgs& args,
                                  PatchifyJobs& work) {
  constexpr std::int64_t kAlignment = 16;
  const auto room = [&](std::size_t i) {
    return args.images[i].on_device ? 0 : (work.images[i].bytes + kAlignment - 1) / kAlignment * kAlignment;
  };
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < work.images.size(); ++i)
    bytes += room(i);
  auto* const memory = scratch.allocate<unsigned char>(bytes);
  const auto address = [](const void* pointer) {
    return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(pointer));
  };
  std::int64_t next = 0;
  for (std::size_t i = 0; i < work.images.size(); ++i) {
    PatchifyImage& image = work.images[i];
    image.pixels = args.images[i].on_device ? address(work.pixels[i]) - address(memory) : next;
    if (!context.planning && !args.images[i].on_device)
      runtime::stage_to_device(context, memory + next, work.pixels[i], static_cast<std::size_t>(image.bytes));
    next += room(i);
  }
  return memory;
}

// Planes cut into patches.
//
// Floor: one read and one write.
//
// Plan: a block takes some whole rows of pixels. A thread takes four pixels of the three planes, with 16-byte loads and
// the widest stores, where patches and rows of pixels are whole in fours; otherwise one pixel.
constexpr int kPlaneThreads = 256;
constexpr std::int64_t kPieceBytes = std::int64_t{64} << 20;

struct PlaneShape {
  std::int64_t plane;  // height · width
  std::int64_t rows;   // of pixels that fill patches, of all images
  int width;           // of a plane
  int image_rows;      // ⌊height/p⌋ · p
  int row_pixels;      // ⌊width/p⌋ · p
  int patch_size;
  int rows_per_block;
};

template <typename T, int kPixels>
__global__ void __launch_bounds__(kPlaneThreads)
    patchify_pixels_kernel(const float* pixels, PlaneShape shape, T* output, std::int64_t stride) {
  constexpr int kAccess = kPixels == 1 ? 1 : kPixels * 3 * sizeof(T) % 16 == 0 ? kWidest<T> : 16 / 2 / int{sizeof(T)};
  const int vectors = shape.row_pixels / kPixels;
  const int patch_columns = shape.row_pixels / shape.patch_size;
  for (int task = static_cast<int>(threadIdx.x); task < vectors * shape.rows_per_block; task += kPlaneThreads) {
    const std::int64_t row = std::int64_t{blockIdx.x} * shape.rows_per_block + task / vectors;
    const int column = task % vectors * kPixels;
    if (in_bounds(row < shape.rows)) {
      const std::int64_t image = row / shape.image_rows;
      const int image_row = static_cast<int>(row % shape.image_rows);
      const float* const from = pixels + image * 3 * shape.plane + std::int64_t{image_row} * shape.width + column;
      T values[3 * kPixels];
#pragma unroll
      for (int channel = 0; channel < 3; ++channel) {
        const auto plane = load_vector<kPixels>(from + channel * shape.plane);
#pragma unroll
        for (int i = 0; i < kPixels; ++i)
          values[3 * i + channel] = from_float<T>(plane[i]);
      }
      const std::int64_t token = row / shape.patch_size * patch_columns + column / shape.patch_size;
      T* const to = output + token * stride +
                    3 * (std::int64_t{image_row % shape.patch_size} * shape.patch_size + column % shape.patch_size);
#pragma unroll
      for (int i = 0; i < 3 * kPixels; i += kAccess) {
        Vector<T, kAccess> part;
#pragma unroll
        for (int j = 0; j < kAccess; ++j)
          part[j] = values[i + j];
        store_vector(to + i, part);
      }
    }
  }
}

template <typename T>
void cut_planes(OpContext& context, const float* pixels, std::int64_t images, const PatchifyPixelsArgs& args,
                const MatrixView& output) {
  const std::int64_t patch = args.patch_size;
  PlaneShape shape;
  shape.plane = args.height * args.width;
  shape.width = static_cast<int>(args.width);
  shape.image_rows = static_cast<int>(args.height / patch * patch);
  shape.row_pixels = static_cast<int>(args.width / patch * patch);
  shape.rows = images * shape.image_rows;
  shape.patch_size = args.patch_size;
  const bool fours = patch % 4 == 0 && args.width % 4 == 0 && rows_aligned(output.data, output.stride, sizeof(T));
  const int vectors = fours ? shape.row_pixels / 4 : shape.row_pixels;
  shape.rows_per_block = vectors < 2 * kPlaneThreads ? 2 * kPlaneThreads / vectors : 1;
  launch(context, "patchify_pixels", fours ? patchify_pixels_kernel<T, 4> : patchify_pixels_kernel<T, 1>,
         {(shape.rows + shape.rows_per_block - 1) / shape.rows_per_block, kPlaneThreads},
         {reads(pixels, images * 3 * shape.plane), writes(output)}, pixels, shape, output.as<T>(), output.stride);
}

}  // namespace

void patchify_images_cuda(OpContext& context, const PatchifyImagesArgs& requested) {
  const HostForTall fetched(context, requested);
  const PatchifyImagesArgs& args = fetched.args();
  PatchifyJobs work(args);
  if (!context.planning) work.fill();
  Scratch scratch(context);
  const unsigned char* const pixels = place_pixels(context, scratch, args, work);
  TablePack pack;
  const auto images = pack.add(work.images);
  const auto strips = pack.add(work.strips);
  const auto far_pixels = pack.add(work.far_pixels);
  const auto taps = pack.add(work.taps);
  const auto weights = pack.add(work.weights);
  const auto normalization = pack.add(work.normalization);
  const TableMemory memory(context, scratch, pack);
  const DeviceTables tables = {pixels,          memory.at(images),  memory.at(strips),       memory.at(far_pixels),
                               memory.at(taps), memory.at(weights), memory.at(normalization)};
  with_activation_type(args.output.dtype, [&](auto type) {
    using T = decltype(type);
    if (args.mode == ResizeMode::kPil) {
      start<ByteArithmetic, T>(context, args, work, tables);
    } else {
      start<FloatArithmetic, T>(context, args, work, tables);
    }
  });
}

// Pixels go through scratch memory in pieces of whole images: copies and kernels are in order, so that one piece of
// memory serves them all.
void patchify_pixels_cuda(OpContext& context, const PatchifyPixelsArgs& args) {
  const std::int64_t image_floats = 3 * args.height * args.width;
  const std::int64_t image_tokens = (args.height / args.patch_size) * (args.width / args.patch_size);
  const std::int64_t fitting = kPieceBytes / 4 / image_floats;
  const std::int64_t piece = fitting < 1 ? 1 : fitting;
  for (std::int64_t first = 0; first < args.images; first += piece) {
    const std::int64_t images = args.images - first < piece ? args.images - first : piece;
    Scratch scratch(context);
    const float* const pixels = scratch.upload(args.pixels + first * image_floats, images * image_floats);
    const MatrixView output = args.output.slice_rows(first * image_tokens, images * image_tokens);
    with_activation_type(args.output.dtype,
                         [&](auto type) { cut_planes<decltype(type)>(context, pixels, images, args, output); });
  }
}

}  // namespace siglip2::cuda
