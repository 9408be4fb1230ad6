#include "compute/gpu_readings.hpp"

#include <dlfcn.h>

#include <array>
#include <memory>

namespace hexgen::compute {
namespace {

// The few calls of NVML that are needed, as its manual declares them; 0 is success.
using device = void*;
struct memory_info {
  unsigned long long total, free, used;
};
struct utilisation {
  unsigned gpu, memory;
};
constexpr unsigned chip = 0; // NVML_TEMPERATURE_GPU

class nvml {
public:
  nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    ready_ = library_ && call<int()>("nvmlInit_v2") == 0;
  }
  ~nvml() {
    if (ready_)
      call<int()>("nvmlShutdown");
  }
  nvml(const nvml&) = delete;
  nvml& operator=(const nvml&) = delete;
  [[nodiscard]] bool loaded() const { return library_ != nullptr; }
  [[nodiscard]] bool ready() const { return ready_; }

  /// -1 when the driver's library lacks the call.
  template <class Signature, class... Arguments>
  int call(const char* name, Arguments... arguments) const {
    const auto address = reinterpret_cast<Signature*>(dlsym(library_.get(), name));
    return address == nullptr ? -1 : address(arguments...);
  }

private:
  struct closer {
    void operator()(void* library) const { dlclose(library); }
  };
  std::unique_ptr<void, closer> library_;
  bool ready_ = false;
};

} // namespace

std::vector<gpu_reading> read_gpus(std::string& why) {
  const nvml n;
  if (!n.ready()) {
    why = n.loaded() ? "the NVIDIA driver does not answer" : "there is no NVIDIA driver";
    return {};
  }
  unsigned count = 0;
  if (n.call<int(unsigned*)>("nvmlDeviceGetCount_v2", &count) != 0 || count == 0) {
    why = "the NVIDIA driver sees no GPU";
    return {};
  }
  std::array<char, 96> text{};
  const auto length = static_cast<unsigned>(text.size() - 1);
  std::string driver;
  if (n.call<int(char*, unsigned)>("nvmlSystemGetDriverVersion", text.data(), length) == 0)
    driver = text.data();
  std::vector<gpu_reading> out;
  for (unsigned i = 0; i < count; ++i) {
    device d = nullptr;
    if (n.call<int(unsigned, device*)>("nvmlDeviceGetHandleByIndex_v2", i, &d) != 0)
      continue;
    gpu_reading g;
    g.driver = driver;
    if (n.call<int(device, char*, unsigned)>("nvmlDeviceGetName", d, text.data(), length) == 0)
      g.name = text.data();
    memory_info m{};
    if (n.call<int(device, memory_info*)>("nvmlDeviceGetMemoryInfo", d, &m) == 0) {
      g.memory_bytes = m.total;
      g.used_bytes = m.used;
    }
    utilisation u{};
    if (n.call<int(device, utilisation*)>("nvmlDeviceGetUtilizationRates", d, &u) == 0)
      g.busy_percent = u.gpu;
    (void)n.call<int(device, unsigned, unsigned*)>("nvmlDeviceGetTemperature", d, chip,
                                                   &g.temperature_c);
    unsigned milliwatts = 0;
    if (n.call<int(device, unsigned*)>("nvmlDeviceGetPowerUsage", d, &milliwatts) == 0)
      g.power_w = milliwatts / 1000.0;
    out.push_back(std::move(g));
  }
  return out;
}

std::string text_of(const gpu_reading& g) {
  return g.name + ", " + std::to_string(g.used_bytes >> 30) + " of " +
         std::to_string(g.memory_bytes >> 30) + " GiB used, " + std::to_string(g.busy_percent) +
         " % busy, " + std::to_string(g.temperature_c) + " C, " +
         std::to_string(static_cast<int>(g.power_w)) + " W, driver " + g.driver;
}

} // namespace hexgen::compute
