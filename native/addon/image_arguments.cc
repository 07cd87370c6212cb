#include "addon/image_arguments.h"

#include "addon/arguments.h"
#include "addon/handles.h"

namespace siglip2::addon {
namespace {

// What patchify_images accepts; products of two such sizes and a number of channels fit 64 bits.
constexpr std::int32_t kMostTargetSize = 1 << 20;

void read_three(const Napi::Value& value, const char* argument, double (&numbers)[3]) {
  const Napi::Array array = to_array(value, argument);
  for (std::uint32_t i = 0; i < 3; ++i)
    numbers[i] = to_number(array.Get(i), argument);
}

}  // namespace

DecodedImages to_decoded_images(const Napi::Object& object, const Device* device) {
  DecodedImages decoded;
  const Napi::Array images = to_array(object.Get("images"), "images");
  for (std::uint32_t i = 0; i < images.Length(); ++i) {
    const Napi::Object image = to_object(images.Get(i), "images");
    ImageView view;
    std::size_t bytes = 0;
    if (device != nullptr && image.Has("tensor")) {
      const auto tensor = from_handle<Tensor>(image.Get("tensor"), "tensor");
      const std::string name = "images[" + std::to_string(i) + "].data";
      if (tensor->dtype != DType::kUInt8)
        throw Error(kErrorUnsupported, name + ": expected uint8, got " + name_of(tensor->dtype));
      if (tensor->device != device)
        throw Error(kErrorShape, name + ": is on device " + tensor->device->name() + ", not on " + device->name());
      view.data = tensor->buffer.as<const std::uint8_t>();
      view.on_device = true;
      bytes = tensor->buffer.bytes();
      decoded.tensors.push_back(tensor);
    } else {
      Bytes copy = to_bytes(image.Get("data"), "data");
      view.data = copy.data.get();
      bytes = copy.size;
      decoded.storage.push_back(std::move(copy.data));
    }
    view.width = to_integer(image.Get("width"), "width");
    view.height = to_integer(image.Get("height"), "height");
    view.channels = static_cast<int>(to_integer(image.Get("channels"), "channels"));
    const bool fits = view.width > 0 && view.height > 0 && view.channels >= 1 && view.channels <= 4 &&
                      view.width <= (std::int64_t{1} << 32) / view.height &&
                      static_cast<std::int64_t>(bytes) == view.width * view.height * view.channels;
    if (!fits)
      throw Error(kErrorImage, "images[" + std::to_string(i) + "]: " + std::to_string(bytes) + " bytes do not fit " +
                                   std::to_string(view.width) + " × " + std::to_string(view.height) + " pixels of " +
                                   std::to_string(view.channels) + " channels");
    decoded.images.push_back(view);
  }
  decoded.target_sizes = to_int32s(object.Get("targetSizes"), "targetSizes");
  if (decoded.target_sizes.size() != 2 * decoded.images.size())
    throw Error(kErrorShape, "targetSizes: expected a height and a width for every image");
  for (const std::int32_t size : decoded.target_sizes)
    if (size < 1 || size > kMostTargetSize)
      throw Error(kErrorShape, "targetSizes: expected sizes from 1 to " + std::to_string(kMostTargetSize) + ", got " +
                                   std::to_string(size));
  PatchifyImagesArgs& processing = decoded.processing;
  read_three(object.Get("mean"), "mean", processing.mean);
  read_three(object.Get("deviation"), "deviation", processing.deviation);
  processing.rescale = to_number(object.Get("rescale"), "rescale");
  processing.mode = to_string(object.Get("mode"), "mode") == "float" ? ResizeMode::kFloat : ResizeMode::kPil;
  processing.filter =
      to_string(object.Get("filter"), "filter") == "bicubic" ? ResizeFilter::kBicubic : ResizeFilter::kBilinear;
  return decoded;
}

}  // namespace siglip2::addon
