#include "tools/worker_processes.hpp"

#include <algorithm>
#include <array>
#include <string_view>

namespace hexgen::tools {
namespace {

/// "-cuda1" for "cuda:1,memory=40GiB".
std::string gpu_suffix(const std::string& device) {
  std::string name = "-" + device.substr(0, device.find(','));
  std::erase(name, ':');
  return name;
}

} // namespace

std::vector<worker_process> worker_processes(const std::vector<std::string>& devices, bool each) {
  const auto is_gpu = [](const std::string& d) { return d.rfind("cuda", 0) == 0; };
  if (devices.size() < 2 || (!each && std::none_of(devices.begin(), devices.end(), is_gpu)))
    return {{"", devices}};
  std::vector<worker_process> workers;
  int others = 0;
  for (const auto& d : devices) {
    const bool gpu = is_gpu(d);
    const auto cpu = std::find_if(workers.begin(), workers.end(),
                                  [](const worker_process& w) { return w.suffix == "-cpu"; });
    if (!gpu && !each && cpu != workers.end())
      cpu->devices.push_back(d);
    else if (!gpu && !each)
      workers.push_back({"-cpu", {d}});
    else
      workers.push_back({gpu ? gpu_suffix(d) : "-cpu" + std::to_string(others++), {d}});
  }
  return workers;
}

std::vector<std::string> worker_command(const std::vector<std::string>& own,
                                        const std::string& machine, const worker_process& worker,
                                        std::size_t index, std::size_t count, int port,
                                        double price_per_hour) {
  constexpr std::array<std::string_view, 4> replaced{"--name", "--device", "--fabric-port",
                                                     "--price-per-hour"};
  std::vector<std::string> out{"/proc/self/exe"};
  for (std::size_t i = 1; i < own.size(); ++i) {
    const std::string_view word = own[i];
    const auto option = word.substr(0, word.find('='));
    if (std::find(replaced.begin(), replaced.end(), option) == replaced.end())
      out.push_back(own[i]);
    else if (option == word)
      ++i; // its value
  }
  out.insert(out.end(),
             {"--name", machine + worker.suffix, "--fabric-port",
              std::to_string(port == 0 ? 0 : port + static_cast<int>(index)), "--price-per-hour",
              std::to_string(price_per_hour / static_cast<double>(count))});
  for (const auto& d : worker.devices)
    out.insert(out.end(), {"--device", d});
  return out;
}

} // namespace hexgen::tools
