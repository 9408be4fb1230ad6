#include "compute/model_catalog.hpp"
#include "compute/model_file.hpp"
#include "tests/catch.hpp"
#include "tests/compute/files/model_writer.hpp"

#include <cstdlib>
#include <optional>

using namespace hexgen::compute;
using namespace hexgen::tests;

namespace {

/// Sets an environment variable for the object's life.
class environment {
public:
  environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name))
      old_ = old;
    set(value);
  }
  ~environment() { set(old_ ? old_->c_str() : nullptr); }
  environment(const environment&) = delete;
  environment& operator=(const environment&) = delete;

private:
  void set(const char* value) {
    if (value != nullptr)
      ::setenv(name_, value, 1);
    else
      ::unsetenv(name_);
  }
  const char* name_;
  std::optional<std::string> old_;
};

std::string error_of(std::string_view argument) {
  try {
    (void)resolve_model(argument);
  } catch (const file_error& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("the built-in model lies in the user's cache") {
  const temporary_folder folder;
  const auto& root = folder.path();
  {
    const environment cache("XDG_CACHE_HOME", root.c_str());
    CHECK(model_cache() == root / "hexgen/models");
    CHECK(contains(error_of("smollm2"), "tools/fetch_model.sh"));
    const auto file = root / "hexgen/models/SmolLM2-135M-Instruct.Q4_1.gguf";
    std::filesystem::create_directories(file.parent_path());
    write_file(file, std::string_view("x"));
    CHECK(resolve_model("smollm2") == file);
  }
  const environment cache("XDG_CACHE_HOME", nullptr);
  const environment home("HOME", root.c_str());
  CHECK(model_cache() == root / ".cache/hexgen/models");
  const environment nowhere("HOME", nullptr);
  CHECK_THROWS_AS(model_cache(), file_error);
}

TEST_CASE("files and folders name themselves") {
  const temporary_folder folder;
  const auto& root = folder.path();
  CHECK(contains(error_of((root / "x.gguf").string()), "no such file or folder"));
  CHECK(contains(error_of("smollm3"), "built-in name (smollm2)"));
  CHECK(contains(error_of(""), "no such file or folder"));
  CHECK(contains(error_of(root.string()), "without config.json"));
  write_file(root / "config.json", std::string_view("{}"));
  CHECK(resolve_model(root.string()) == root);
  write_file(root / "x.gguf", std::string_view("x"));
  CHECK(resolve_model((root / "x.gguf").string()) == root / "x.gguf");
  CHECK(contains(error_of((root / "config.json").string()), "neither a .gguf file"));
}
