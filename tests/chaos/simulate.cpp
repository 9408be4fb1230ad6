// Replays one seed of the simulated cluster, or searches seeds for a violation.
#include "tests/chaos/simulation.hpp"

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

namespace {

int usage() {
  std::cerr << "usage: simulate [--seed N] [--seeds COUNT] [--steps M] [--log]\n"
               "                [--bug "
               "skip-generation-check|drop-last-token|forget-lease|skip-refill|forget-memory]\n"
               "  --seed N     the first seed (1)\n"
               "  --seeds C    how many seeds from there (1)\n"
               "  --steps M    stop each after M events (0: when it is over)\n"
               "  --log        print what happens\n"
               "  --bug B      with a fault planted in the simulation\n"
               "exit codes: 0 no violation, 1 a violation (printed with its seed), 2 usage\n";
  return 2;
}

bool number(const char* text, std::uint64_t& out) {
  char* end = nullptr;
  out = std::strtoull(text, &end, 10);
  return end != text && *end == '\0';
}

} // namespace

int main(int argc, char** argv) {
  using hexgen::tests::planted_bug;
  hexgen::tests::simulation_options o;
  std::uint64_t seeds = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view a = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (a == "--log") {
      o.log = [](const std::string& line) { std::cout << line << '\n'; };
      continue;
    }
    ++i;
    if (a == "--bug") {
      const std::string_view bug = value;
      o.bug = bug == "skip-generation-check" ? planted_bug::skip_generation_check
              : bug == "drop-last-token"     ? planted_bug::drop_last_token
              : bug == "forget-lease"        ? planted_bug::forget_lease
              : bug == "skip-refill"         ? planted_bug::skip_refill
              : bug == "forget-memory"       ? planted_bug::forget_memory
                                             : planted_bug::none;
      if (o.bug == planted_bug::none)
        return usage();
    } else if (!(a == "--seed" && number(value, o.seed)) &&
               !(a == "--seeds" && number(value, seeds)) &&
               !(a == "--steps" && number(value, o.steps))) {
      return usage();
    }
  }
  std::uint64_t bad = 0, requests = 0, refused = 0, finished = 0, moved = 0, refilled = 0,
                relayed = 0, faults = 0, events = 0;
  for (const std::uint64_t first = o.seed; o.seed < first + seeds; ++o.seed) {
    const auto r = hexgen::tests::simulate(o);
    requests += r.requests;
    refused += r.refused;
    finished += r.finished;
    moved += r.moved;
    refilled += r.refilled;
    relayed += r.relayed;
    faults += r.faults;
    events += r.events;
    if (r.violations.empty())
      continue;
    ++bad;
    for (const auto& v : r.violations)
      std::cout << "seed " << o.seed << ": " << v << std::endl; // at once: a search takes long
  }
  std::cout << seeds << " seeds, " << events << " events, " << faults << " faults, " << requests
            << " requests, " << refused << " refused, " << finished << " answers, " << moved
            << " moves, " << refilled << " refills, " << relayed << " relayed links, " << bad
            << " seeds with violations\n";
  return bad == 0 ? 0 : 1;
}
