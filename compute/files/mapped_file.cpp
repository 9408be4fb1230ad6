#include "compute/files/mapped_file.hpp"

#include "compute/model_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>

namespace hexgen::compute {

namespace {

class descriptor {
public:
  explicit descriptor(const std::filesystem::path& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (fd_ < 0)
      throw file_error(path.string() + ": cannot open: " + std::strerror(errno));
  }
  ~descriptor() { ::close(fd_); }
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

private:
  int fd_;
};

std::size_t regular_file_size(const descriptor& file, const std::filesystem::path& path) {
  struct stat info {};
  if (::fstat(file.get(), &info) != 0)
    throw file_error(path.string() + ": cannot stat: " + std::strerror(errno));
  if (!S_ISREG(info.st_mode))
    throw file_error(path.string() + ": not a regular file");
  return static_cast<std::size_t>(info.st_size);
}

/// Where files are mapped now, by their first address: dropping pages of any other memory would
/// lose what it holds.
struct live_mappings {
  struct mapping {
    std::size_t size = 0;
    std::filesystem::path path;
  };
  std::mutex mutex; // held for what find() gives
  std::map<std::uintptr_t, mapping> by_address;

  /// The one that holds [begin, end); null: none does.
  [[nodiscard]] const std::pair<const std::uintptr_t, mapping>* find(std::uintptr_t begin,
                                                                     std::uintptr_t end) const {
    const auto after = by_address.upper_bound(begin);
    if (after == by_address.begin())
      return nullptr;
    const auto& one = *std::prev(after);
    return end <= one.first + one.second.size ? &one : nullptr;
  }
};

/// Never destroyed: a mapping may be held by an object of static storage that dies later.
live_mappings& live() {
  static auto& mappings = *new live_mappings;
  return mappings;
}

std::uintptr_t address(const std::byte* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

} // namespace

std::shared_ptr<const mapped_file> mapped_file::open(const std::filesystem::path& path) {
  const descriptor file(path);
  const auto size = regular_file_size(file, path);
  std::span<const std::byte> bytes;
  if (size > 0) {
    void* base = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (base == MAP_FAILED)
      throw file_error(path.string() + ": cannot map: " + std::strerror(errno));
    bytes = {static_cast<const std::byte*>(base), size};
    const std::lock_guard lock(live().mutex);
    live().by_address[address(bytes.data())] = {size, path};
  }
  return std::shared_ptr<const mapped_file>(new mapped_file(bytes));
}

mapped_file::~mapped_file() {
  if (bytes_.empty())
    return;
  const std::lock_guard lock(live().mutex);
  live().by_address.erase(address(bytes_.data()));
  ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void drop_mapped_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (address(bytes.data()) + page - 1) / page * page;
  const auto end = (address(bytes.data()) + bytes.size()) / page * page;
  if (begin >= end)
    return;
  const std::lock_guard lock(live().mutex);
  if (live().find(begin, end) != nullptr) // a read-only mapping of a file: nothing is lost
    ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::optional<file_place> place_in_file(std::span<const std::byte> bytes) {
  const auto begin = address(bytes.data());
  const std::lock_guard lock(live().mutex);
  const auto* found = live().find(begin, begin + bytes.size());
  if (found == nullptr)
    return std::nullopt;
  return file_place{found->second.path, begin - found->first};
}

std::string read_text_file(const std::filesystem::path& path, std::size_t limit_bytes) {
  const descriptor file(path);
  const auto size = regular_file_size(file, path);
  if (size > limit_bytes)
    throw file_error(path.string() + ": " + std::to_string(size) + " bytes, at most " +
                     std::to_string(limit_bytes) + " are read");
  std::string text(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const auto n = ::read(file.get(), text.data() + done, size - done);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      throw file_error(path.string() + ": cannot read: " + std::strerror(errno));
    if (n == 0)
      break;
    done += static_cast<std::size_t>(n);
  }
  text.resize(done);
  return text;
}

} // namespace hexgen::compute
