// hexgen doctor: what this machine has, what is missing and how to get it.
#include "compute/cuda_backend.hpp"
#include "compute/executor.hpp"
#include "compute/gpu_readings.hpp"
#include "compute/model_catalog.hpp"
#include "tools/settings.hpp"
#include "tools/verbs.hpp"

#include <CLI/CLI.hpp>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <nlohmann/json.hpp>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <thread>

namespace hexgen::tools {
namespace {

struct finding {
  std::string what;
  bool good = true;
  std::string found;  // what there is
  std::string advice; // when it is not good
};

finding cpu() {
  finding f{"CPU kernels", true, {}, {}};
  try {
    for (const auto& level : compute::cpu_levels())
      f.found += (f.found.empty() ? "" : ", ") + level;
  } catch (const std::exception& e) {
    f.found = e.what();
  }
  f.good = !f.found.empty();
  f.found += (f.found.empty() ? "none" : "") + std::string("; ") +
             std::to_string(std::thread::hardware_concurrency()) + " threads";
  if (!f.good)
    f.advice = "a CPU with AVX2 and FMA is needed";
  return f;
}

finding memory() {
  const double gib = static_cast<double>(::sysconf(_SC_AVPHYS_PAGES)) *
                     static_cast<double>(::sysconf(_SC_PAGE_SIZE)) / (1 << 30);
  char text[64];
  std::snprintf(text, sizeof text, "%.1f GiB free", gib);
  return {"memory", gib > 0.5, text, "close other programs, or give --device cpu:memory=SIZE"};
}

finding shared_memory() {
  std::error_code none;
  const auto space = std::filesystem::space("/dev/shm", none);
  const bool good = !none && space.available > (std::uintmax_t{64} << 20);
  return {"shared memory (/dev/shm)", good,
          none ? none.message() : std::to_string(space.available >> 20) + " MiB free",
          "UCX between processes needs it; in a container give --shm-size=1g, or use --zone -"};
}

finding model() {
  try {
    return {"default model", true, compute::resolve_model("smollm2").string(), {}};
  } catch (const std::exception& e) {
    return {"default model", false, "not here", e.what()};
  }
}

finding port(const char* what, int number) {
  const int s = ::socket(AF_INET, SOCK_STREAM, 0);
  const int yes = 1;
  ::setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(static_cast<std::uint16_t>(number));
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool free = ::bind(s, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0;
  ::close(s);
  return {what, free, std::to_string(number) + (free ? " is free" : " is in use"),
          "hexgen may be running already (hexgen status), or choose another port"};
}

finding token() {
  const auto file = default_token_file();
  std::error_code none;
  const bool there = std::filesystem::exists(file, none);
  return {"cluster token", true, there ? file : "none yet: `hexgen serve` makes one", {}};
}

finding gpu() {
  std::string why;
  std::string cards;
  for (const auto& g : compute::read_gpus(why))
    cards += (cards.empty() ? "" : "; ") + compute::text_of(g);
  if (compute::built_with_cuda())
    return {"CUDA backend", true, "built in; " + (cards.empty() ? why : cards), {}};
  return {"CUDA backend", cards.empty(),
          cards.empty() ? "no GPU (" + why + ")" : "not built in, but here are " + cards,
          "install the CUDA toolkit and configure again with -DHEXGEN_CUDA=ON"};
}

int doctor(bool as_json) {
  const std::vector<finding> all{
      cpu(),   memory(), shared_memory(),         gpu(),
      model(), token(),  port("HTTP port", 8000), port("fabric port", 7600)};
  nlohmann::json out = nlohmann::json::array();
  bool good = true;
  for (const auto& f : all) {
    good &= f.good;
    if (as_json) {
      out.push_back({{"what", f.what},
                     {"good", f.good},
                     {"found", f.found},
                     {"advice", f.good ? "" : f.advice}});
      continue;
    }
    std::printf("%-4s %-25s %s\n", f.good ? "ok" : "look", f.what.c_str(), f.found.c_str());
    if (!f.good)
      std::printf("     -> %s\n", f.advice.c_str());
  }
  if (as_json)
    std::printf("%s\n", out.dump().c_str());
  return good ? 0 : 1;
}

} // namespace

void add_doctor(CLI::App& app, action& chosen) {
  auto json = std::make_shared<bool>(false);
  auto* verb = app.add_subcommand("doctor", "What this machine has, what is missing and how to get "
                                            "it; exit code 1 when something needs a look");
  verb->add_flag("--json", *json, "The same as JSON");
  verb->callback([json, &chosen] { chosen = [json] { return doctor(*json); }; });
}

} // namespace hexgen::tools
