// Runs the planning verbs as a user would: a program, its output and exit code.
#pragma once

#include "tests/catch.hpp"

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

namespace hexgen::test {

inline const std::string root = HEXGEN_SOURCE_DIR;

struct outcome {
  int code = 0;
  std::string out; // stderr too when asked for
};

inline outcome run_planning(const std::string& arguments, bool errors = false) {
  const auto command =
      std::string(HEXGEN_PLANNING) + " " + arguments + (errors ? " 2>&1" : " 2>/dev/null");
  outcome made;
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::array<char, 4096> piece{};
  for (std::size_t n = 0; (n = std::fread(piece.data(), 1, piece.size(), pipe)) > 0;)
    made.out.append(piece.data(), n);
  const int status = pclose(pipe);
  made.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return made;
}

/// A folder of this process for files that a test writes.
inline std::filesystem::path scratch() {
  static const auto folder = std::filesystem::temp_directory_path() /
                             ("hexgen-planning-test-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  return folder;
}

inline std::string write_scratch(const std::string& name, const std::string& text) {
  const auto path = (scratch() / name).string();
  std::ofstream(path) << text;
  return path;
}

} // namespace hexgen::test
