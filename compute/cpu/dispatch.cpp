// Which kernels this machine can run, and which were asked for.
#include "compute/cpu/kernel_levels.hpp"
#include "compute/executor.hpp"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace hexgen::compute {

namespace {

/// Whether the CPU has byte tiles and the kernel lets this process use them: their state is large,
/// so Linux grants it only on request (Documentation/arch/x86/xstate.rst).
bool may_use_tiles() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr unsigned tile_and_int8 = 3U << 24;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & tile_and_int8) != tile_and_int8)
    return false;
  constexpr long request_permission = 0x1023;
  constexpr long tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

/// Best first.
std::vector<const kernel_table*> runnable() {
  std::vector<const kernel_table*> tables;
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  static const bool tiles = may_use_tiles();
  if (vnni && tiles)
    tables.push_back(&kernels_amx());
  if (vnni)
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
