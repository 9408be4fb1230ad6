// One allocation that a shard's weights are packed into, and its size before it is made.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hexgen::compute {

/// Anonymous memory, on huge pages where the kernel has them. Contents start as zero.
class page_buffer {
public:
  page_buffer() = default;
  /// Throws std::bad_alloc.
  explicit page_buffer(std::size_t bytes);
  ~page_buffer();
  page_buffer(page_buffer&& other) noexcept;
  page_buffer& operator=(page_buffer&& other) noexcept;
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }

private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Hands out 64-byte aligned pieces. Without memory it only counts, so that the same loading code
/// predicts what it will use.
class arena {
public:
  arena() = default;
  explicit arena(std::size_t bytes) : memory_(bytes), counts_only_(false) {}
  /// nullptr when the arena only counts. Throws std::bad_alloc when the arena is too small.
  [[nodiscard]] std::byte* take(std::size_t bytes);
  template <class T>
  [[nodiscard]] T* take_array(std::size_t count) {
    return reinterpret_cast<T*>(take(count * sizeof(T)));
  }
  [[nodiscard]] std::size_t used() const { return used_; }
  /// 0 when it only counts.
  [[nodiscard]] std::size_t size() const { return memory_.size(); }

private:
  page_buffer memory_;
  std::size_t used_ = 0;
  bool counts_only_ = true;
};

} // namespace hexgen::compute
