// Which kernels this machine can run, and which were asked for.
#include "compute/cpu/kernel_levels.hpp"
#include "compute/executor.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace hexgen::compute {

namespace {

/// Best first.
std::vector<const kernel_table*> runnable() {
  std::vector<const kernel_table*> tables;
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512vnni"))
    tables.push_back(&kernels_vnni());
  if (avx512)
    tables.push_back(&kernels_avx512());
  if (avx2)
    tables.push_back(&kernels_avx2());
  return tables;
}

const kernel_table& find_level(const std::string& level) {
  std::string known;
  for (const auto* table : runnable()) {
    if (level.empty() || level == table->level)
      return *table;
    known += std::string(known.empty() ? "" : ", ") + table->level;
  }
  if (known.empty())
    throw std::runtime_error("this machine's CPU has no AVX2 with FMA, which Hexgen needs");
  throw std::invalid_argument("no CPU level '" + level + "' on this machine (it has " + known +
                              ")");
}

std::atomic<const kernel_table*> chosen{nullptr};

} // namespace

std::vector<std::string> cpu_levels() {
  std::vector<std::string> names;
  for (const auto* table : runnable())
    names.emplace_back(table->level);
  return names;
}

void set_cpu_level(const std::string& level) {
  chosen.store(&find_level(level));
}

const kernel_table& fast_kernels() {
  if (const auto* table = chosen.load(); table != nullptr)
    return *table;
  const char* asked = std::getenv("HEXGEN_CPU_LEVEL");
  const auto& table = find_level(asked == nullptr ? "" : asked);
  chosen.store(&table);
  return table;
}

} // namespace hexgen::compute
