#include "compute/model_file.hpp"

#include "compute/files/gguf_model.hpp"
#include "compute/files/hf_model.hpp"
#include "compute/shape_model.hpp"

#include <array>

namespace hexgen::compute {

namespace {

struct type_traits {
  const char* name;
  int block_values;
  int block_bytes;
};

/// In the order of tensor_type.
constexpr std::array<type_traits, 12> traits{{{"F32", 1, 4},
                                              {"F16", 1, 2},
                                              {"BF16", 1, 2},
                                              {"Q8_0", 32, 34},
                                              {"Q4_0", 32, 18},
                                              {"Q4_1", 32, 20},
                                              {"Q5_0", 32, 22},
                                              {"Q5_1", 32, 24},
                                              {"IQ4_NL", 32, 18},
                                              {"Q4_K", 256, 144},
                                              {"Q5_K", 256, 176},
                                              {"Q6_K", 256, 210}}};

const type_traits& of(tensor_type type) {
  return traits[static_cast<std::size_t>(type)];
}

} // namespace

const char* to_string(tensor_type type) {
  return of(type).name;
}

int block_values(tensor_type type) {
  return of(type).block_values;
}

int block_bytes(tensor_type type) {
  return of(type).block_bytes;
}

std::size_t row_bytes(tensor_type type, std::int64_t columns) {
  if (columns < 0 || columns % of(type).block_values != 0)
    throw std::invalid_argument(std::to_string(columns) + " columns are not whole blocks of " +
                                to_string(type));
  return static_cast<std::size_t>(columns / of(type).block_values) *
         static_cast<std::size_t>(of(type).block_bytes);
}

std::shared_ptr<const model_file> open_model(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    return open_hf_model(path);
  if (path.extension() == ".yaml")
    return open_shape_model(path);
  if (path.extension() != ".gguf")
    throw file_error(path.string() + ": neither a .gguf file nor a folder with config.json");
  return open_gguf_model(gguf_file::open(path));
}

} // namespace hexgen::compute
