#include "transport/secrets.hpp"

#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <system_error>

namespace hexgen::transport {
namespace {

constexpr std::size_t longest_secret = 4096;
constexpr std::size_t short_secret = 16;

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& what) {
  throw std::runtime_error("token file " + file.string() + ": " + what);
}

} // namespace

std::string generate_token() {
  std::array<unsigned char, 32> bits{};
  if (RAND_bytes(bits.data(), static_cast<int>(bits.size())) != 1)
    throw std::runtime_error("the system's random numbers are not available");
  static constexpr char digits[] = "0123456789abcdef";
  std::string token;
  for (const unsigned char byte : bits) {
    token.push_back(digits[byte >> 4U]);
    token.push_back(digits[byte & 15U]);
  }
  return token;
}

std::string read_token(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in)
    fail(file, std::strerror(errno));
  std::string text(longest_secret + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > longest_secret)
    fail(file, "longer than 4096 bytes");
  text.resize(std::min(text.find_first_of("\r\n"), text.size()));
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string::npos)
    fail(file, "empty");
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

void write_token(const std::filesystem::path& file, const std::string& token) {
  std::error_code error;
  const std::filesystem::path folder = file.parent_path();
  if (!folder.empty() && !std::filesystem::exists(folder, error)) {
    std::filesystem::create_directories(folder, error);
    if (error)
      fail(file, "cannot make its folder: " + error.message());
    std::filesystem::permissions(folder, std::filesystem::perms::owner_all, error);
  }
  const std::string fresh = file.string() + "." + std::to_string(::getpid()) + ".new";
  ::unlink(fresh.c_str());
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0)
    fail(file, std::strerror(errno));
  const std::string line = token + "\n";
  const bool written = ::write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  const int write_error = errno;
  ::close(fd);
  if (!written || ::rename(fresh.c_str(), file.c_str()) != 0) {
    const int why = written ? errno : write_error;
    ::unlink(fresh.c_str());
    fail(file, std::strerror(why));
  }
}

std::string weakness(const std::string& secret) {
  if (secret.empty())
    return "the secret is empty";
  if (secret.size() < short_secret)
    return "the secret has only " + std::to_string(secret.size()) +
           " characters; 16 or more are wanted, best a generated one";
  return {};
}

} // namespace hexgen::transport
