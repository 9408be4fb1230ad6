#include "actors/shell/process_restart.hpp"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <utility>

namespace hexgen::actors {
namespace {

constexpr const char* variable = "HEXGEN_RESTARTED_BECAUSE";
constexpr std::size_t longest_reason = 512;
constexpr int exit_temporary = 75; // EX_TEMPFAIL

} // namespace

std::vector<std::string> own_command() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(in, word, '\0');)
    words.push_back(std::move(word));
  return words;
}

void restart_process(const std::string& why) {
  auto words = own_command();
  std::vector<char*> arguments;
  for (auto& word : words)
    arguments.push_back(word.data());
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
