// A file's bytes, mapped read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace hexgen::compute {

/// The mapping lives as long as the object. Thread-safe. The file must not shrink meanwhile:
/// touching pages past its new end kills the process, as with every mapped file.
class mapped_file {
public:
  /// Throws file_error when the path is no readable regular file. An empty file maps to no bytes.
  [[nodiscard]] static std::shared_ptr<const mapped_file> open(const std::filesystem::path& path);
  ~mapped_file();
  mapped_file(const mapped_file&) = delete;
  mapped_file& operator=(const mapped_file&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

private:
  explicit mapped_file(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

/// Gives back the memory of those whole pages of `bytes` that lie in a live mapped_file: they are
/// read again when they are touched. Bytes from elsewhere stay as they are. Thread-safe.
void drop_mapped_pages(std::span<const std::byte> bytes);

/// Where in which file `bytes` of a live mapped_file lie.
struct file_place {
  std::filesystem::path path; // as it was opened
  std::uint64_t offset = 0;
};
/// None: the bytes are no file's. Thread-safe.
[[nodiscard]] std::optional<file_place> place_in_file(std::span<const std::byte> bytes);

/// The whole of a small text file (configuration). Throws file_error when it is unreadable or
/// longer than `limit_bytes`.
[[nodiscard]] std::string read_text_file(const std::filesystem::path& path,
                                         std::size_t limit_bytes);

} // namespace hexgen::compute
