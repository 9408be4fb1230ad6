// What a hop between two stages costs, next to bare UCX and bare TCP, in interleaved runs.
//   bench_hop [--runs 10] [--wake event|spin|busy] [--quick] [--links fabric] [--json]
// A hop is half a round trip: device thread, queue, link, queue, device thread of another process.
#include "tools/bench/hop_side.hpp"
#include "tools/bench/median.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

namespace hexgen::bench {

const char* to_text(hop_kind kind) {
  switch (kind) {
  case hop_kind::fabric_ucx:
    return "fabric-ucx";
  case hop_kind::fabric_tls:
    return "fabric-tls";
  case hop_kind::raw_ucx:
    return "raw-ucx";
  case hop_kind::raw_tcp:
    return "raw-tcp";
  }
  return "?";
}

namespace {

using transport::wakeup;
using clock = std::chrono::steady_clock;

struct settings {
  int runs = 10;
  bool quick = false;
  bool json = false;
  std::string links; // part of the name of those to measure beside raw-ucx; empty: all
  wakeup wake = wakeup::event;
  std::string wake_text = "event";
};

std::unique_ptr<hop_driver> make_driver(hop_kind kind, wakeup wake, const hop_channel& channel) {
  switch (kind) {
  case hop_kind::fabric_ucx:
  case hop_kind::fabric_tls:
    return make_fabric_driver(kind == hop_kind::fabric_ucx, wake, channel);
  case hop_kind::raw_ucx:
    return make_raw_ucx_driver(wake, channel);
  case hop_kind::raw_tcp:
    break;
  }
  return make_raw_tcp_driver(channel);
}

[[noreturn]] void serve(const std::string& kind, wakeup wake) {
  const hop_channel channel;
  if (kind == to_text(hop_kind::raw_ucx))
    serve_raw_ucx(wake, channel);
  if (kind == to_text(hop_kind::raw_tcp))
    serve_raw_tcp(channel);
  serve_fabric(kind == to_text(hop_kind::fabric_ucx), wake, channel);
}

struct figures {
  std::map<std::size_t, std::vector<double>> minimum_us; // by floats, one a run
  std::map<std::size_t, std::vector<double>> median_us;
  std::map<std::size_t, std::vector<double>> gb_per_s; // by bytes
};

constexpr std::size_t hop_floats[] = {576, 8192};
constexpr std::size_t bulk_bytes[] = {4U << 20, 64U << 20};

void measure(hop_driver& driver, bool quick, figures& out) {
  for (const std::size_t floats : hop_floats) {
    const std::size_t bytes = floats * sizeof(float);
    const int rounds = quick ? 300 : 2000;
    for (int i = 0; i < rounds / 10; ++i)
      driver.round_trip(bytes);
    std::vector<double> hops;
    for (int i = 0; i < rounds; ++i) {
      const auto begin = clock::now();
      driver.round_trip(bytes);
      hops.push_back(std::chrono::duration<double, std::micro>(clock::now() - begin).count() / 2);
    }
    out.minimum_us[floats].push_back(*std::min_element(hops.begin(), hops.end()));
    out.median_us[floats].push_back(median(hops));
  }
  for (const std::size_t bytes : bulk_bytes) {
    const int count = static_cast<int>((quick ? 256U << 20 : 1U << 30) / bytes);
    driver.stream(bytes, 4, 4);
    const auto begin = clock::now();
    driver.stream(bytes, count, 4);
    const double seconds = std::chrono::duration<double>(clock::now() - begin).count();
    out.gb_per_s[bytes].push_back(static_cast<double>(bytes) * count / seconds / 1e9);
  }
}

void print(const std::map<hop_kind, figures>& all, const settings& set) {
  const figures& raw = all.at(hop_kind::raw_ucx);
  std::printf(set.json ? "{\"runs\": %d, \"wake\": \"%s\", \"rows\": [\n"
                       : "%d interleaved runs, wake-up %s; a hop is half a round trip\n",
              set.runs, set.wake_text.c_str());
  if (!set.json)
    std::printf("%-12s %10s %14s %12s %10s\n", "link", "payload", "min us (med.)", "p50 us (med.)",
                "x raw-ucx");
  bool first = true;
  for (const auto& [kind, f] : all) {
    for (const std::size_t floats : hop_floats) {
      const double low = median(f.minimum_us.at(floats));
      const double mid = median(f.median_us.at(floats));
      const double ratio = low / median(raw.minimum_us.at(floats));
      if (set.json)
        std::printf("%s  {\"link\": \"%s\", \"floats\": %zu, \"min_us\": %.3f, \"p50_us\": %.3f, "
                    "\"ratio\": %.3f}",
                    first ? "" : ",\n", to_text(kind), floats, low, mid, ratio);
      else
        std::printf("%-12s %6zu f32 %14.2f %12.2f %10.2f\n", to_text(kind), floats, low, mid,
                    ratio);
      first = false;
    }
    for (const std::size_t bytes : bulk_bytes) {
      const double rate = median(f.gb_per_s.at(bytes));
      const double ratio = rate / median(raw.gb_per_s.at(bytes));
      if (set.json)
        std::printf(",\n  {\"link\": \"%s\", \"bytes\": %zu, \"gb_per_s\": %.3f, \"ratio\": %.3f}",
                    to_text(kind), bytes, rate, ratio);
      else
        std::printf("%-12s %6zu MiB %9.2f GB/s %12s %10.2f\n", to_text(kind), bytes >> 20U, rate,
                    "", ratio);
    }
  }
  if (set.json)
    std::printf("\n]}\n");
}

int run(int argc, char** argv) {
  settings set;
  std::string serves;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&]() -> std::string { return i + 1 < argc ? argv[++i] : ""; };
    if (option == "--runs")
      set.runs = std::max(1, std::atoi(value().c_str()));
    else if (option == "--quick")
      set.quick = true;
    else if (option == "--json")
      set.json = true;
    else if (option == "--links")
      set.links = value();
    else if (option == "--serve")
      serves = value();
    else if (option == "--wake")
      set.wake_text = value();
    else
      throw std::runtime_error(
          "bench_hop [--runs N] [--wake event|spin|busy] [--quick] [--links NAME] [--json]");
  }
  if (set.wake_text == "spin")
    set.wake = wakeup::spin;
  else if (set.wake_text == "busy")
    set.wake = wakeup::busy;
  else if (set.wake_text != "event")
    throw std::runtime_error("bench_hop: --wake is event, spin or busy");
  if (!serves.empty())
    serve(serves, set.wake);
  std::map<hop_kind, figures> all;
  for (int i = 0; i < set.runs; ++i) {
    for (const hop_kind kind : hop_kinds) {
      if (kind != hop_kind::raw_ucx && std::strstr(to_text(kind), set.links.c_str()) == nullptr)
        continue;
      const child_end other({"bench_hop", "--serve", to_text(kind), "--wake", set.wake_text});
      const auto driver = make_driver(kind, set.wake, other.channel());
      measure(*driver, set.quick, all[kind]);
    }
    std::fprintf(stderr, "run %d of %d\r", i + 1, set.runs);
  }
  std::fprintf(stderr, "\n");
  print(all, set);
  return 0;
}

} // namespace
} // namespace hexgen::bench

int main(int argc, char** argv) {
  try {
    return hexgen::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
