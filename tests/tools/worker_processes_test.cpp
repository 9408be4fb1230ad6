#include "tests/catch.hpp"
#include "tools/worker_processes.hpp"

using namespace hexgen::tools;

namespace {

using words = std::vector<std::string>;

std::vector<std::pair<std::string, words>> split(const words& devices, bool each) {
  std::vector<std::pair<std::string, words>> out;
  for (const auto& w : worker_processes(devices, each))
    out.emplace_back(w.suffix, w.devices);
  return out;
}

} // namespace

TEST_CASE("devices share a process unless one of them is a GPU", "[workers]") {
  using all = std::vector<std::pair<std::string, words>>;
  CHECK(split({"cuda:3"}, false) == all{{"", {"cuda:3"}}});
  CHECK(split({"cpu"}, true) == all{{"", {"cpu"}}});
  CHECK(split({"cpu:threads=1", "cpu:threads=2"}, false) ==
        all{{"", {"cpu:threads=1", "cpu:threads=2"}}});
  CHECK(split({"cpu:threads=1", "cpu:threads=2"}, true) ==
        all{{"-cpu0", {"cpu:threads=1"}}, {"-cpu1", {"cpu:threads=2"}}});
  CHECK(split({"cuda:1,memory=40GiB", "cpu", "cuda:0", "cpu:threads=2"}, false) ==
        all{{"-cuda1", {"cuda:1,memory=40GiB"}},
            {"-cpu", {"cpu", "cpu:threads=2"}},
            {"-cuda0", {"cuda:0"}}});
}

TEST_CASE("a worker's command differs in name, devices, port and price", "[workers]") {
  const words own{"hexgen",        "join",     "h:7600",     "--name=box",       "--device",
                  "cuda:0",        "--device", "cuda:1",     "--model",          "/models/--name",
                  "--fabric-port", "7700",     "--zone=one", "--price-per-hour", "3"};
  const worker_process second{"-cuda1", {"cuda:1"}};
  CHECK(worker_command(own, "box", second, 1, 2, 7700, 3) ==
        words{"/proc/self/exe", "join", "h:7600", "--model", "/models/--name", "--zone=one",
              "--name", "box-cuda1", "--fabric-port", "7701", "--price-per-hour", "1.500000",
              "--device", "cuda:1"});
  CHECK(worker_command({"hexgen", "join", "h:7600"}, "box", second, 1, 2, 0, 0) ==
        words{"/proc/self/exe", "join", "h:7600", "--name", "box-cuda1", "--fabric-port", "0",
              "--price-per-hour", "0.000000", "--device", "cuda:1"});
}
