#include "compute/files/safetensors.hpp"

#include "compute/files/checked.hpp"
#include "compute/files/json_file.hpp"
#include "compute/files/mapped_file.hpp"
#include "compute/files/stored_model.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hexgen::compute {

static_assert(std::endian::native == std::endian::little, "safetensors are read in place");

namespace {

constexpr std::uint64_t max_header_bytes = 16 << 20;
constexpr std::size_t max_tensors = 1 << 16;

std::uint64_t unsigned_of(const nlohmann::json& value, const std::string& where) {
  if (!value.is_number_unsigned())
    throw file_error(where + ": want a whole number that is not negative");
  return value.get<std::uint64_t>();
}

tensor_type type_of(const nlohmann::json& entry, const std::string& where) {
  const auto it = entry.find("dtype");
  if (it == entry.end() || !it->is_string())
    throw file_error(where + ": dtype: missing or not a string");
  const auto& name = it->get_ref<const std::string&>();
  if (name == "F32")
    return tensor_type::f32;
  if (name == "F16")
    return tensor_type::f16;
  if (name == "BF16")
    return tensor_type::bf16;
  throw file_error(where + ": dtype: " + in_quotes(name) + " is none of F32, F16, BF16");
}

void read_shape(const nlohmann::json& entry, const std::string& where, tensor_view& tensor) {
  const auto it = entry.find("shape");
  if (it == entry.end() || !it->is_array() || it->empty() || it->size() > 2)
    throw file_error(where + ": shape: want one or two dimensions");
  for (const auto& dimension : *it) {
    const auto extent = unsigned_of(dimension, where + ": shape");
    if (extent < 1 || extent > std::numeric_limits<std::int32_t>::max())
      throw file_error(where + ": shape: a dimension is " + std::to_string(extent));
    tensor.rows = it->size() == 1 ? 1 : tensor.columns;
    tensor.columns = static_cast<std::int64_t>(extent);
  }
}

} // namespace

void safetensors_file::read(std::span<const std::byte> bytes) {
  std::uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes)
    throw file_error(name_ + ": header length: the file is shorter than 8 bytes");
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  if (header_bytes > max_header_bytes || header_bytes > bytes.size() - sizeof header_bytes)
    throw file_error(name_ + ": header length: " + std::to_string(header_bytes) +
                     " bytes reach past the file's end or the limit");
  const auto text = bytes.subspan(sizeof header_bytes, header_bytes);
  const auto data = bytes.subspan(sizeof header_bytes + header_bytes);
  const auto header =
      parse_json_object({reinterpret_cast<const char*>(text.data()), text.size()}, name_, 4);
  if (header.size() > max_tensors)
    throw file_error(name_ + ": header: more than " + std::to_string(max_tensors) + " tensors");
  names_.reserve(header.size()); // views of the names stay valid
  for (const auto& [key, entry] : header.items()) {
    if (key == "__metadata__")
      continue;
    const auto where = name_ + ": tensor " + in_quotes(key);
    if (!entry.is_object())
      throw file_error(where + ": not an object");
    tensor_view tensor;
    tensor.type = type_of(entry, where);
    read_shape(entry, where, tensor);
    const auto offsets = entry.find("data_offsets");
    if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2)
      throw file_error(where + ": data_offsets: want two numbers");
    const auto begin = unsigned_of((*offsets)[0], where + ": data_offsets");
    const auto end = unsigned_of((*offsets)[1], where + ": data_offsets");
    const auto size = checked_multiply(row_bytes(tensor.type, tensor.columns),
                                       static_cast<std::uint64_t>(tensor.rows));
    if (begin > end || end > data.size() || !size || *size != end - begin)
      throw file_error(where + ": data_offsets: do not fit the shape or the file");
    tensor.bytes = data.subspan(begin, end - begin);
    tensor.name = names_.emplace_back(key);
    tensors_.push_back(tensor);
  }
  std::vector<const tensor_view*> order;
  for (const auto& tensor : tensors_)
    order.push_back(&tensor);
  std::sort(order.begin(), order.end(),
            [](auto a, auto b) { return a->bytes.data() < b->bytes.data(); });
  const auto* next = data.data();
  for (const auto* tensor : order) {
    if (tensor->bytes.data() != next)
      throw file_error(name_ + ": tensor " + in_quotes(tensor->name) +
                       ": data_offsets: a hole or an overlap before it");
    next += tensor->bytes.size();
  }
  if (next != data.data() + data.size())
    throw file_error(name_ + ": data that no tensor covers at the end");
}

std::shared_ptr<const safetensors_file> safetensors_file::open(const std::filesystem::path& path) {
  auto map = mapped_file::open(path);
  const auto bytes = map->bytes();
  return parse(path.string(), bytes, std::move(map));
}

std::shared_ptr<const safetensors_file> safetensors_file::parse(std::string name,
                                                                std::span<const std::byte> bytes,
                                                                std::shared_ptr<const void> owner) {
  std::shared_ptr<safetensors_file> file(new safetensors_file);
  file->name_ = std::move(name);
  file->owner_ = std::move(owner);
  file->read(bytes);
  return file;
}

const tensor_view* safetensors_file::find(std::string_view name) const {
  const auto it = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const auto& tensor, auto key) { return tensor.name < key; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

} // namespace hexgen::compute
