// Choices that were made by timing, kept from one start of the program to the next.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace hexgen::compute {

/// A file of lines "key bytes-in-hex". What cannot be read, and a file that cannot be written, cost
/// a new timing and nothing else. Not thread-safe; several processes may add to one file.
class timed_choices {
public:
  /// Reads the file; an empty path keeps nothing.
  explicit timed_choices(std::filesystem::path file);
  /// The folder of such files: in the user's cache; empty when there is none.
  [[nodiscard]] static std::filesystem::path folder();

  /// The bytes kept for `key`, when there are exactly `size`.
  [[nodiscard]] std::optional<std::vector<std::byte>> find(const std::string& key,
                                                           std::size_t size) const;
  /// Keeps the bytes of a key without spaces. The last ones count.
  void keep(const std::string& key, std::span<const std::byte> bytes);

private:
  std::filesystem::path file_;
  std::map<std::string, std::vector<std::byte>> kept_;
};

} // namespace hexgen::compute
