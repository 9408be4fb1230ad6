// Any bytes as a GGUF file: refused by file_error, or every promise of the opened file holds.
#include "compute/files/gguf_model.hpp"

#include <cstdint>
#include <cstdlib>
#include <span>

using namespace hexgen::compute;

namespace {

template <class Use>
void try_out(Use use) {
  try {
    use();
  } catch (const file_error&) {
  }
}

void read_values(const gguf_file& file) {
  for (const auto& value : file.values()) {
    try_out([&] { (void)value.as_string(); });
    try_out([&] { (void)value.as_integer(); });
    try_out([&] { (void)value.as_number(); });
    try_out([&] { (void)value.as_boolean(); });
    try_out([&] { (void)value.as_strings(); });
    try_out([&] { (void)value.as_integers(); });
    try_out([&] { (void)value.as_floats(); });
    if (file.find(value.key()) != &value)
      std::abort();
  }
}

void read_tensors(std::span<const tensor_view> tensors) {
  std::vector<float> row;
  for (const auto& tensor : tensors) {
    const auto stride = row_bytes(tensor.type, tensor.columns);
    if (stride * static_cast<std::size_t>(tensor.rows) != tensor.bytes.size())
      std::abort();
    row.resize(static_cast<std::size_t>(tensor.columns));
    const auto last = static_cast<std::size_t>(tensor.rows - 1) * stride;
    dequantize_row(tensor.type, tensor.bytes.data(), tensor.columns, row.data());
    dequantize_row(tensor.type, tensor.bytes.data() + last, tensor.columns, row.data());
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_out([&] {
    const auto file = gguf_file::parse("input", std::as_bytes(std::span(data, size)), nullptr);
    read_values(*file);
    read_tensors(file->tensors());
    const auto model = open_gguf_model(file);
    read_tensors(model->tensors());
  });
  return 0;
}
