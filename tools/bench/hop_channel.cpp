#include "tools/bench/hop_channel.hpp"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <stdexcept>
#include <utility>

namespace hexgen::bench {

void hop_channel::put(const std::string& text) const {
  const auto bytes = static_cast<std::uint32_t>(text.size());
  if (::write(out, &bytes, sizeof bytes) != sizeof bytes ||
      ::write(out, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    throw std::runtime_error("the channel to the other end is closed");
}

std::string hop_channel::get() const {
  std::uint32_t bytes = 0;
  if (::read(in, &bytes, sizeof bytes) != sizeof bytes || bytes > 65536)
    throw std::runtime_error("the channel to the other end is closed");
  std::string text(bytes, '\0');
  for (std::size_t got = 0; got < bytes;) {
    const ssize_t step = ::read(in, text.data() + got, bytes - got);
    if (step <= 0)
      throw std::runtime_error("the channel to the other end is closed");
    got += static_cast<std::size_t>(step);
  }
  return text;
}

child_end::child_end(std::vector<std::string> arguments) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
    throw std::runtime_error("no socket pair");
  std::vector<char*> words;
  for (auto& argument : arguments)
    words.push_back(argument.data());
  words.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::dup2(pair[1], 0);
    ::dup2(pair[1], 1);
    ::close(pair[0]);
    ::close(pair[1]);
    ::execv("/proc/self/exe", words.data());
    ::_exit(127);
  }
  ::close(pair[1]);
  fd_ = pair[0];
}

child_end::child_end(child_end&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), fd_(std::exchange(other.fd_, -1)) {}

child_end::~child_end() {
  if (pid_ < 0)
    return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::close(fd_);
}

} // namespace hexgen::bench
