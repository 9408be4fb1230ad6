#include "compute/files/gguf.hpp"

#include "compute/files/checked.hpp"
#include "compute/files/mapped_file.hpp"
#include "compute/files/stored_model.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hexgen::compute {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place");

namespace {

// Far above any model's, far below what a hostile count could make us allocate.
constexpr std::uint64_t max_values = 1 << 16;
constexpr std::uint64_t max_tensors = 1 << 16;
constexpr std::uint64_t max_key_bytes = 65535;
constexpr std::uint64_t max_tensor_name_bytes = 256;
constexpr std::uint64_t max_alignment = 1 << 20;

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

std::optional<tensor_type> tensor_type_of(std::uint32_t number) {
  switch (number) {
  case 0:
    return tensor_type::f32;
  case 1:
    return tensor_type::f16;
  case 2:
    return tensor_type::q4_0;
  case 3:
    return tensor_type::q4_1;
  case 6:
    return tensor_type::q5_0;
  case 7:
    return tensor_type::q5_1;
  case 8:
    return tensor_type::q8_0;
  case 12:
    return tensor_type::q4_k;
  case 13:
    return tensor_type::q5_k;
  case 14:
    return tensor_type::q6_k;
  case 20:
    return tensor_type::iq4_nl;
  case 30:
    return tensor_type::bf16;
  default:
    return std::nullopt;
  }
}

} // namespace

class gguf_parser {
public:
  explicit gguf_parser(gguf_file& file, std::span<const std::byte> bytes)
      : file_(file), bytes_(bytes) {}

  void run() {
    if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0)
      fail("magic", "not a GGUF file");
    at_ = 4;
    file_.version_ = take<std::uint32_t>("version");
    if (file_.version_ != 2 && file_.version_ != 3)
      fail("version", std::to_string(file_.version_) + " is not one that is read (2 and 3)");
    const auto tensors = take<std::uint64_t>("tensor count");
    const auto values = take<std::uint64_t>("metadata count");
    if (tensors > max_tensors)
      fail("tensor count",
           std::to_string(tensors) + " is more than " + std::to_string(max_tensors));
    if (values > max_values)
      fail("metadata count",
           std::to_string(values) + " is more than " + std::to_string(max_values));
    for (std::uint64_t i = 0; i < values; ++i)
      read_value();
    read_alignment();
    for (std::uint64_t i = 0; i < tensors; ++i)
      read_tensor();
    file_.header_ = bytes_.first(at_);
    place_tensors();
  }

private:
  [[noreturn]] void fail(const std::string& field, const std::string& problem) const {
    throw file_error(file_.name_ + ": " + field + ": " + problem);
  }

  [[nodiscard]] std::uint64_t left() const { return bytes_.size() - at_; }

  std::span<const std::byte> take_bytes(std::uint64_t count, const std::string& field) {
    if (count > left())
      fail(field, "the file ends " + std::to_string(count - left()) + " bytes too early");
    const auto out = bytes_.subspan(at_, count);
    at_ += count;
    return out;
  }

  template <class T>
  T take(const std::string& field) {
    return load<T>(take_bytes(sizeof(T), field).data());
  }

  std::string_view take_string(const std::string& field, std::uint64_t limit) {
    const auto length = take<std::uint64_t>(field);
    if (length > limit)
      fail(field, std::to_string(length) + " bytes is longer than " + std::to_string(limit));
    const auto text = take_bytes(length, field);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  gguf_type take_type(const std::string& field) {
    const auto number = take<std::uint32_t>(field);
    if (number > static_cast<std::uint32_t>(gguf_type::f64))
      fail(field, "unknown value type " + std::to_string(number));
    return static_cast<gguf_type>(number);
  }

  void read_value() {
    gguf_value value;
    value.file_ = &file_.name_;
    value.key_ = take_string("metadata key " + std::to_string(file_.values_.size()), max_key_bytes);
    const auto field = in_quotes(value.key_);
    value.type_ = value.element_type_ = take_type(field);
    if (value.is_array()) {
      value.element_type_ = take_type(field);
      value.count_ = take<std::uint64_t>(field);
      if (value.element_type_ == gguf_type::array)
        fail(field, "an array of arrays");
    }
    const auto begin = at_;
    if (value.element_type_ == gguf_type::string) {
      for (std::uint64_t i = 0; i < value.count_; ++i)
        take_string(field, left());
    } else {
      const auto size = checked_multiply(value.count_, bytes_of(value.element_type_));
      if (!size)
        fail(field, "an array of " + std::to_string(value.count_) + " elements");
      take_bytes(*size, field);
    }
    value.bytes_ = bytes_.subspan(begin, at_ - begin);
    if (!file_.index_.emplace(value.key_, file_.values_.size()).second)
      fail(field, "given twice");
    file_.values_.push_back(value);
  }

  void read_alignment() {
    if (const auto* value = file_.find("general.alignment")) {
      alignment_ = static_cast<std::uint64_t>(value->as_integer(1, max_alignment));
      // Weights are read in place, so they must lie on their element's boundary.
      if (!std::has_single_bit(alignment_) || alignment_ < 8)
        fail("general.alignment", std::to_string(alignment_) + " is not a power of two from 8");
    }
  }

  void read_tensor() {
    tensor_view tensor;
    tensor.name =
        take_string("name of tensor " + std::to_string(offsets_.size()), max_tensor_name_bytes);
    const auto field = "tensor " + in_quotes(tensor.name);
    const auto dimensions = take<std::uint32_t>(field);
    if (dimensions < 1 || dimensions > 4)
      fail(field, std::to_string(dimensions) + " dimensions");
    std::uint64_t extent[4] = {1, 1, 1, 1};
    for (std::uint32_t d = 0; d < dimensions; ++d) {
      extent[d] = take<std::uint64_t>(field);
      if (extent[d] < 1 || extent[d] > std::numeric_limits<std::int32_t>::max())
        fail(field, "dimension " + std::to_string(d) + " is " + std::to_string(extent[d]));
    }
    if (extent[2] != 1 || extent[3] != 1)
      fail(field, "more than two dimensions");
    tensor.columns = static_cast<std::int64_t>(extent[0]);
    tensor.rows = static_cast<std::int64_t>(extent[1]);
    const auto number = take<std::uint32_t>(field);
    const auto type = tensor_type_of(number);
    if (!type)
      fail(field, "unknown or unsupported tensor type " + std::to_string(number));
    tensor.type = *type;
    if (tensor.columns % block_values(tensor.type) != 0)
      fail(field, std::to_string(tensor.columns) + " columns are not whole blocks of " +
                      compute::to_string(tensor.type));
    const auto offset = take<std::uint64_t>(field);
    if (offset % alignment_ != 0)
      fail(field,
           "offset " + std::to_string(offset) + " is not aligned to " + std::to_string(alignment_));
    offsets_.push_back(offset);
    file_.tensors_.push_back(tensor);
  }

  void place_tensors() {
    if (offsets_.empty())
      return;
    const auto data = checked_align(at_, alignment_);
    if (!data || *data > bytes_.size())
      fail("tensor data", "the file ends before it");
    const auto weights = bytes_.subspan(*data);
    std::vector<std::size_t> order(offsets_.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
      auto& tensor = file_.tensors_[i];
      const auto size = checked_multiply(row_bytes(tensor.type, tensor.columns),
                                         static_cast<std::uint64_t>(tensor.rows));
      const auto end = size ? checked_add(offsets_[i], *size) : std::nullopt;
      if (!end || *end > weights.size())
        fail("tensor " + in_quotes(tensor.name), "reaches past the end of the file");
      tensor.bytes = weights.subspan(offsets_[i], *size);
    }
    std::sort(order.begin(), order.end(),
              [&](auto a, auto b) { return offsets_[a] < offsets_[b]; });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const auto& before = file_.tensors_[order[i - 1]];
      if (offsets_[order[i - 1]] + before.bytes.size() > offsets_[order[i]])
        fail("tensor " + in_quotes(file_.tensors_[order[i]].name),
             "overlaps tensor " + in_quotes(before.name));
    }
    std::unordered_map<std::string_view, int> seen;
    for (const auto& tensor : file_.tensors_)
      if (seen[tensor.name]++ > 0)
        fail("tensor " + in_quotes(tensor.name), "given twice");
  }

  gguf_file& file_;
  std::span<const std::byte> bytes_;
  std::uint64_t at_ = 0;
  std::uint64_t alignment_ = 32;
  std::vector<std::uint64_t> offsets_; // of the tensors, from the start of the weights
};

std::shared_ptr<const gguf_file> gguf_file::open(const std::filesystem::path& path) {
  auto map = mapped_file::open(path);
  const auto bytes = map->bytes();
  return parse(path.string(), bytes, std::move(map));
}

std::shared_ptr<const gguf_file> gguf_file::parse(std::string name,
                                                  std::span<const std::byte> bytes,
                                                  std::shared_ptr<const void> owner) {
  std::shared_ptr<gguf_file> file(new gguf_file);
  file->name_ = std::move(name);
  file->owner_ = std::move(owner);
  gguf_parser(*file, bytes).run();
  return file;
}

const gguf_value* gguf_file::find(std::string_view key) const {
  const auto it = index_.find(key);
  return it == index_.end() ? nullptr : &values_[it->second];
}

const gguf_value& gguf_file::at(std::string_view key) const {
  if (const auto* value = find(key))
    return *value;
  throw file_error(name_ + ": " + in_quotes(key) + ": missing");
}

} // namespace hexgen::compute
