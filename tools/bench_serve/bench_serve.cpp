#include "tools/bench_serve/bench_serve.hpp"

#include "tools/bench_serve/bench_client.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <stdexcept>

namespace hexgen::tools {

namespace {

void show_progress(const bench_progress& p) {
  constexpr int width = 30;
  const int ended = p.done + p.failed;
  const int filled = width * ended / std::max(1, p.total);
  std::string bar(static_cast<std::size_t>(filled), '#');
  bar.resize(width, '.');
  std::fprintf(stderr, "\r[%s] %d/%d, %d running, %d failed, %.1f req/s, %.0f s ", bar.c_str(),
               ended, p.total, p.running, p.failed, p.elapsed_s > 0 ? p.done / p.elapsed_s : 0.0,
               p.elapsed_s);
  if (ended == p.total)
    std::fputc('\n', stderr);
  std::fflush(stderr);
}

int run(const bench_options& given) {
  auto options = given;
  if (options.model.empty())
    options.model = first_model(options);
  std::function<void(const bench_progress&)> progress;
  if (isatty(STDERR_FILENO))
    progress = show_progress;
  if (options.warmups > 0) {
    auto quiet = options;
    quiet.request_rate = std::numeric_limits<double>::infinity();
    const auto warm = run_workload(quiet, make_workload(quiet, options.warmups, 1), {});
    for (const auto& one : warm.records)
      if (!one.ok)
        throw std::runtime_error("a warm-up request failed: " + one.error);
  }
  const auto done = run_workload(options, make_workload(options, options.num_prompts, 0), progress);
  const auto report = make_report(done.records, done.duration_s, options);
  const auto json = report_json(report, options);
  if (!options.result_file.empty() && !(std::ofstream(options.result_file) << json << "\n"))
    throw std::runtime_error("cannot write " + options.result_file);
  std::fputs((options.json ? json + "\n" : report_text(report, options)).c_str(), stdout);
  if (done.interrupted)
    std::fputs("interrupted: the figures are of what was sent until then\n", stderr);
  return report.completed > 0 ? 0 : 1;
}

} // namespace

int bench_main(int argc, char** argv) {
  try {
    const auto options = parse_bench_options({argv + std::min(argc, 1), argv + argc});
    if (options.help) {
      std::fputs(bench_help().c_str(), stdout);
      return 0;
    }
    return run(options);
  } catch (const std::invalid_argument& e) {
    std::fprintf(stderr, "hexgen bench: %s\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "hexgen bench: %s\n", e.what());
    return 1;
  }
}

} // namespace hexgen::tools
