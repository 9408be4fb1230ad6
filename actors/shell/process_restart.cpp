#include "actors/shell/process_restart.hpp"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

namespace hexgen::actors {
namespace {

constexpr const char* variable = "HEXGEN_RESTARTED_BECAUSE";
constexpr std::size_t longest_reason = 512;
constexpr int exit_temporary = 75; // EX_TEMPFAIL

} // namespace

void restart_process(const std::string& why) {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::string line{std::istreambuf_iterator<char>(in), {}};
  std::vector<char*> arguments;
  for (std::size_t at = 0; at < line.size(); at = line.find('\0', at) + 1) {
    arguments.push_back(&line[at]);
    if (line.find('\0', at) == std::string::npos)
      break;
  }
  arguments.push_back(nullptr);
  setenv(variable, why.substr(0, longest_reason).c_str(), 1);
  execv("/proc/self/exe", arguments.data());
  _exit(exit_temporary);
}

std::string restart_reason() {
  const char* text = std::getenv(variable);
  std::string why = text == nullptr ? "" : std::string(text).substr(0, longest_reason);
  unsetenv(variable);
  return why;
}

} // namespace hexgen::actors
