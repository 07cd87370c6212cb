#include <vector>

#include "ops/convert/convert.h"
#include "tensor/convert.h"

namespace siglip2 {

void convert_reference(OpContext&, const ConvertArgs& args) {
  const auto columns = static_cast<std::size_t>(args.input.columns);
  std::vector<float> row_values(columns);
  for (std::int64_t row = 0; row < args.input.rows; ++row) {
    const auto input = static_cast<const char*>(args.input.data) +
                       row * args.input.stride * static_cast<std::int64_t>(size_of(args.input.dtype));
    const auto output = static_cast<char*>(args.output.data) +
                        row * args.output.stride * static_cast<std::int64_t>(size_of(args.output.dtype));
    widen_to_float(args.input.dtype, input, row_values.data(), columns);
    narrow_from_float(args.output.dtype, row_values.data(), output, columns);
  }
}

}  // namespace siglip2
