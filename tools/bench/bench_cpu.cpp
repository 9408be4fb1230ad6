// Decode and prefill rates of the CPU executor beside the limits measured in the same run: the read
// rate of memory and the peak of the integer unit.
//   bench_cpu MODEL [threads] [level] [seconds per figure]
#include "compute/executor.hpp"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace hexgen::compute;

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The best time of `work` in about `budget_s`, in seconds; at least three runs.
template <class Work>
double best_s(double budget_s, Work&& work) {
  double best = 1e30;
  const double end = now_s() + budget_s;
  for (int i = 0; i < 3 || now_s() < end; ++i) {
    const double begin = now_s();
    work();
    best = std::min(best, now_s() - begin);
  }
  return best;
}

template <class Work>
void on_threads(int threads, Work&& work) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t)
    others.emplace_back([&, t] { work(t); });
  work(0);
  for (auto& t : others)
    t.join();
}

/// Bytes per second that `threads` threads read from a buffer of the weights' size.
double read_rate(std::size_t bytes, int threads, double budget_s) {
  std::vector<std::uint64_t> buffer(bytes / 8, 1);
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(threads));
  const double seconds = best_s(budget_s, [&] {
    on_threads(threads, [&](int t) {
      const std::size_t share = buffer.size() / static_cast<std::size_t>(threads);
      const auto* begin = buffer.data() + share * static_cast<std::size_t>(t);
      // One word of each line brings the line; arithmetic must not be what is measured.
      constexpr std::size_t line = 8, lines = 8;
      std::uint64_t some[lines] = {};
      for (std::size_t i = 0; i + line * lines <= share; i += line * lines)
        for (std::size_t j = 0; j < lines; ++j)
          some[j] += begin[i + j * line];
      sums[static_cast<std::size_t>(t)] += std::accumulate(some, some + lines, std::uint64_t{0});
    });
  });
  if (sums[0] == 0)
    std::puts("");
  return static_cast<double>(bytes) / seconds;
}

#if defined(__x86_64__)
/// Multiplications and additions per second of the 512-bit byte dot (0 without VNNI).
[[gnu::target("avx512f,avx512vnni")]] void dot_bytes(std::int64_t rounds, __m512i* out) {
  __m512i sums[12];
  for (auto& s : sums)
    s = _mm512_setzero_si512();
  __m512i a = _mm512_set1_epi8(1);
  const __m512i b = _mm512_set1_epi8(2);
  for (std::int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+v"(a)); // keeps the loop from being folded
#pragma GCC unroll 12
    for (auto& s : sums)
      s = _mm512_dpbusd_epi32(s, a, b);
  }
  for (auto& s : sums)
    *out = _mm512_add_epi32(*out, s);
}

double byte_peak(int threads, double budget_s) {
  if (!__builtin_cpu_supports("avx512vnni"))
    return 0;
  constexpr std::int64_t rounds = 1'000'000;
  const double seconds = best_s(budget_s, [&] {
    on_threads(threads, [&](int) {
      alignas(64) __m512i out{};
      dot_bytes(rounds, &out);
    });
  });
  return threads * static_cast<double>(rounds) * 12 * 64 * 2 / seconds;
}

/// `rounds` products of four pairs of full tiles: 16 x 64 bytes by 64 x 16.
[[gnu::target("amx-tile,amx-int8")]] void dot_tiles(std::int64_t rounds) {
  struct alignas(64) {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shape;
  asm volatile("" ::"r"(&shape) : "memory"); // g++ 12 may drop the stores before the load
  _tile_loadconfig(&shape);
  alignas(64) static const std::int8_t ones[16 * 64] = {1};
  _tile_loadd(4, ones, 64);
  _tile_loadd(5, ones, 64);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::int64_t i = 0; i < rounds; ++i) {
    _tile_dpbusd(0, 4, 5);
    _tile_dpbusd(1, 4, 5);
    _tile_dpbusd(2, 4, 5);
    _tile_dpbusd(3, 4, 5);
  }
  _tile_release();
}

/// The same of the tile unit, which the executor's level has the system's leave to use.
double tile_peak(int threads, double budget_s) {
  constexpr std::int64_t rounds = 200'000;
  const double seconds =
      best_s(budget_s, [&] { on_threads(threads, [&](int) { dot_tiles(rounds); }); });
  return threads * static_cast<double>(rounds) * 4 * 16 * 16 * 64 * 2 / seconds;
}
#endif

struct sequences {
  explicit sequences(executor& e)
      : device(e), logits(64 * static_cast<std::size_t>(e.config().vocab)) {}

  /// One step of `count` sequences, `tokens` each, from `position`; the last token's logits.
  void run(int count, int tokens, int position) {
    step s;
    const int blocks = (position + tokens + block_tokens - 1) / block_tokens;
    for (int i = 0; i < count; ++i) {
      step_entry e{static_cast<std::uint64_t>(i), position, tokens, 1, {}};
      for (int b = 0; b < blocks; ++b)
        e.blocks.push_back(static_cast<std::uint32_t>(i * blocks_each + b));
      s.entries.push_back(std::move(e));
    }
    std::vector<std::int32_t> ids(static_cast<std::size_t>(count) * tokens);
    for (std::size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<std::int32_t>(i * 7919 % 30000);
    hidden.resize(ids.size() * static_cast<std::size_t>(device.config().hidden));
    device.run(s, ids, hidden,
               std::span(logits).first(static_cast<std::size_t>(count) * device.config().vocab),
               solo);
  }

  static constexpr int blocks_each = 40;
  executor& device;
  std::vector<float> hidden, logits;
  solo_collective solo;
};

} // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_cpu MODEL [threads] [level] [seconds per figure]\n");
    return 2;
  }
  executor_options options;
  options.threads = argc > 2 ? std::atoi(argv[2]) : 1;
  if (argc > 3 && std::strlen(argv[3]) != 0)
    set_cpu_level(argv[3]);
  const double budget_s = argc > 4 ? std::atof(argv[4]) : 1.0;

  const auto model = open_model(argv[1]);
  const auto device = make_cpu_executor(
      model, make_shards(model->config(), 0, model->config().layers, {1.0})[0], options);
  device->allocate_kv(32 * sequences::blocks_each);
  sequences work(*device);
  const auto& c = model->config();
  const double weight_bytes = static_cast<double>(device->memory().weight_bytes);
  const double layer_macs =
      static_cast<double>(c.layers) *
      (static_cast<double>(c.hidden) * (2.0 * c.q_width() + 2.0 * c.kv_width()) +
       3.0 * c.hidden * c.ffn);

  const double read = read_rate(static_cast<std::size_t>(weight_bytes), options.threads, budget_s);
  const bool tiles = cpu_levels().front() == "amx";
  const double peak =
      tiles ? tile_peak(options.threads, budget_s) : byte_peak(options.threads, budget_s);
  std::printf("%s, %d thread(s): %.1f MB packed, read %.1f GB/s, byte peak %.0f GOP/s\n",
              cpu_levels().front().c_str(), options.threads, weight_bytes / 1e6, read / 1e9,
              peak / 1e9);
  for (const int batch : {1, 4, 8, 16}) {
    const double s = best_s(budget_s, [&] { work.run(batch, 1, 64); });
    std::printf(
        "decode  B=%-3d %8.1f tok/s  %6.2f ms/step  %5.1f GB/s = %3.0f %% of the read rate\n",
        batch, batch / s, s * 1e3, weight_bytes / s / 1e9, 100 * weight_bytes / s / read);
  }
  for (const int tokens : {128, 512}) {
    const double s = best_s(budget_s, [&] { work.run(1, tokens, 0); });
    const double flops = 2 * layer_macs * tokens / s;
    std::printf(
        "prefill %-5d %8.1f tok/s  %6.1f GFLOP/s in the layers = %3.0f %% of the byte peak / 2\n",
        tokens, tokens / s, flops / 1e9, peak > 0 ? 100 * flops / (peak / 2) : 0.0);
  }
  return 0;
}
