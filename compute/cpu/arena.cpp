#include "compute/cpu/arena.hpp"

#include <sys/mman.h>

#include <new>
#include <utility>

namespace hexgen::compute {

page_buffer::page_buffer(std::size_t bytes) : size_(bytes) {
  if (bytes == 0)
    return;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    throw std::bad_alloc();
  madvise(p, bytes, MADV_HUGEPAGE); // a hint: failing costs only speed
  data_ = static_cast<std::byte*>(p);
}

page_buffer::~page_buffer() {
  if (data_ != nullptr)
    munmap(data_, size_);
}

page_buffer::page_buffer(page_buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

page_buffer& page_buffer::operator=(page_buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

std::byte* arena::take(std::size_t bytes) {
  constexpr std::size_t line = 64;
  const std::size_t begin = used_;
  used_ += (bytes + line - 1) / line * line;
  if (counts_only_)
    return nullptr;
  if (used_ > memory_.size())
    throw std::bad_alloc();
  return memory_.data() + begin;
}

} // namespace hexgen::compute
