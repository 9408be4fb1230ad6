#include "tests/catch.hpp"
#include "transport/secrets.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <stdexcept>

using namespace hexgen::transport;

namespace {

struct scratch_folder {
  scratch_folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "hexgen-XXXXXX").string();
    path = ::mkdtemp(pattern.data());
  }
  ~scratch_folder() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

} // namespace

TEST_CASE("secrets: generated tokens have 256 bits and differ", "[secrets]") {
  const std::string a = generate_token();
  CHECK(a.size() == 64);
  CHECK(a.find_first_not_of("0123456789abcdef") == std::string::npos);
  CHECK(a != generate_token());
  CHECK(weakness(a).empty());
  CHECK_FALSE(weakness("short").empty());
  CHECK_FALSE(weakness("").empty());
}

TEST_CASE("secrets: a token file is private and read back", "[secrets]") {
  const scratch_folder scratch;
  const auto file = scratch.path / "state" / "hexgen" / "cluster-token";
  write_token(file, "first");
  write_token(file, "the token");
  CHECK(read_token(file) == "the token");
  struct stat info {};
  REQUIRE(::stat(file.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777U) == 0600);
}

TEST_CASE("secrets: unreadable, empty and endless files are named", "[secrets]") {
  const scratch_folder scratch;
  const auto file = scratch.path / "token";
  const auto why = [&] {
    try {
      static_cast<void>(read_token(file));
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(why().find(file.string()) != std::string::npos);
  std::ofstream(file) << "  \nsecond line\n";
  CHECK(why().find("empty") != std::string::npos);
  std::ofstream(file) << std::string(5000, 'x');
  CHECK(why().find("longer") != std::string::npos);
  std::ofstream(file) << "\t blanks around \r\n";
  CHECK(read_token(file) == "blanks around");
}
