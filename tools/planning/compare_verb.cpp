#include "tools/planning/evaluation.hpp"
#include "tools/planning/solve.hpp"
#include "tools/planning/verbs.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <chrono>
#include <cstdio>

namespace hexgen::tools {

namespace {

/// One line on a terminal's stderr that says what is being done, gone before a row is printed.
class status_line {
public:
  explicit status_line(bool every_line)
      : every_line_(every_line), terminal_(isatty(STDERR_FILENO) == 1) {}
  ~status_line() { clear(); }
  status_line(const status_line&) = delete;
  status_line& operator=(const status_line&) = delete;

  void tell(const std::string& text) const {
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    if (every_line_)
      std::fprintf(stderr, "%6.1f s  %s\n", seconds, text.c_str());
    else if (terminal_)
      std::fprintf(stderr, "\r\033[K%6.1f s  %.100s", seconds, text.c_str());
  }
  void clear() const {
    if (terminal_ && !every_line_)
      std::fputs("\r\033[K", stderr);
  }

private:
  bool every_line_, terminal_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Columns of the printed table.
class table {
public:
  explicit table(bool paper) : paper_(paper) {}

  void head(const input_flags& flags) const {
    std::printf("%s, %s, %s mode, %s occupancy, %s dispatch; deadlines from one node of 8 A100 at "
                "degree 8\n\n",
                flags.model.c_str(), flags.workload.c_str(), flags.mode.c_str(),
                flags.occupancy.c_str(), flags.dispatch.c_str());
    line("", "here", "reference simulation", "paper");
  }
  void row(const evaluation_row& one) const {
    line(one.name, joined(one.values), one.expected, one.paper);
    if (!one.spread.empty())
      std::printf("%76s %s\n", "", one.spread.c_str());
    std::fflush(stdout);
  }
  void foot() const {
    if (paper_)
      std::printf(
          "\nThe line below a row of rates or scales: the tenth to ninetieth percentile on %zu "
          "traces of %zu requests, as short as the reference simulation's.\n",
          short_traces, short_trace_requests);
    else
      std::puts(
          "\nSteps are formed by the engine's batching policy; the paper, without batching, has "
          "no figure for such a run: its own stand beside as they are.");
  }

private:
  void line(const std::string& name, const std::string& here, const std::string& expected,
            const std::string& other) const {
    if (paper_)
      std::printf("%-76s %-34s %-34s %s\n", name.c_str(), here.c_str(), expected.c_str(),
                  other.c_str());
    else
      std::printf("%-76s %-34s %s\n", name.c_str(), here.c_str(), other.c_str());
  }

  bool paper_;
};

int run(const evaluation_flags& flags) {
  watch_interrupt();
  const status_line status(flags.progress);
  const table printed(flags.inputs.mode == "paper");
  auto rows = nlohmann::ordered_json::array();
  const bool json = flags.inputs.json;
  if (!json)
    printed.head(flags.inputs);
  evaluate(flags, {[&](const evaluation_row& one) {
                     status.clear();
                     if (json)
                       rows.push_back({{"name", one.name},
                                       {"values", one.values},
                                       {"expected", one.expected},
                                       {"paper", one.paper},
                                       {"spread", one.spread}});
                     else
                       printed.row(one);
                   },
                   [&](const std::string& what) { status.tell(what); }});
  status.clear();
  if (json)
    std::puts(nlohmann::ordered_json{{"mode", flags.inputs.mode},
                                     {"model", flags.inputs.model},
                                     {"workload", flags.inputs.workload},
                                     {"complete", !interrupted()},
                                     {"rows", rows}}
                  .dump(2)
                  .c_str());
  else if (interrupted())
    std::puts("\ninterrupted: the rows that follow are not known");
  else
    printed.foot();
  return 0;
}

} // namespace

int compare_main(int argc, char** argv) {
  CLI::App app{"The paper's evaluation and the baselines, in one table", "hexgen compare"};
  evaluation_flags flags;
  flags.inputs.mode = "paper";
  flags.inputs.model = "llama-2-70b";
  flags.inputs.workload = "arena-grid";
  add_input_flags(app, flags.inputs, false);
  app.add_option("--part", flags.part,
                 "the paper's evaluation, Helix's clusters (calibrated mode) or all")
      ->check(CLI::IsMember({"all", "paper", "helix"}))
      ->capture_default_str();
  app.add_option("--seconds-each", flags.seconds_each, "at most for each of about 45 searches")
      ->check(CLI::Range(0.05, 600.0))
      ->capture_default_str();
  app.add_option("--requests", flags.requests, "simulated for each figure")
      ->check(CLI::Range(1000, 10'000'000))
      ->capture_default_str();
  app.add_flag("--progress", flags.progress, "tell of searches on stderr");
  if (const int code = parse_arguments(app, argc, argv); code != 0)
    return code - 1;
  try {
    return run(flags);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hexgen compare: %s\n", error.what());
    return 1;
  }
}

} // namespace hexgen::tools
