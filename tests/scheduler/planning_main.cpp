// The planning verbs as a program of their own, for tests without CAF.
#include "tools/planning/verbs.hpp"

#include <cstdio>

int main(int argc, char** argv) {
  const auto verb = argc > 1 ? hexgen::tools::planning_verb(argv[1]) : nullptr;
  if (verb == nullptr) {
    std::fprintf(stderr, "usage: planning plan|cost|simulate|compare ...\n");
    return 2;
  }
  return verb(argc - 1, argv + 1);
}
