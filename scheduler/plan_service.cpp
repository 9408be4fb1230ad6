#include "scheduler/plan_service.hpp"

#include <algorithm>

namespace hexgen::scheduler {

line_service service_of(const cost_model& costs, const pipeline& line,
                        const std::vector<config::request_kind>& kinds, occupancy mode) {
  line_service made;
  for (const auto& kind : kinds) {
    const auto time = time_pipeline(costs, line, kind.prompt_tokens, kind.output_tokens);
    made.latency.push_back(static_cast<float>(time.latency_s));
    made.occupancy.push_back(
        static_cast<float>(mode == occupancy::whole_request ? time.latency_s : time.bottleneck_s));
  }
  return made;
}

std::vector<line_service> services_of(const cost_model& costs, const std::vector<pipeline>& lines,
                                      const std::vector<config::request_kind>& kinds,
                                      occupancy mode) {
  std::vector<line_service> services;
  for (const auto& line : lines)
    services.push_back(service_of(costs, line, kinds, mode));
  return services;
}

std::vector<const line_service*> pointers_to(const std::vector<line_service>& services) {
  std::vector<const line_service*> pointers;
  for (const auto& service : services)
    pointers.push_back(&service);
  return pointers;
}

line_stages stages_of(const cost_model& costs, const pipeline& line,
                      const std::vector<config::request_kind>& kinds) {
  line_stages made;
  for (const auto& kind : kinds) {
    const auto whole = price_stages(costs, line, kind.prompt_tokens, kind.output_tokens);
    const auto prompt = price_stages(costs, line, kind.prompt_tokens, 0);
    const double tokens = std::max(1, kind.output_tokens);
    std::vector<line_stages::times> stages;
    for (std::size_t j = 0; j < line.size(); ++j) {
      const auto time = [](const stage_cost& cost) {
        return cost.compute_s + cost.tensor_parallel_s;
      };
      stages.push_back({time(prompt[j]), (time(whole[j]) - time(prompt[j])) / tokens,
                        prompt[j].pipeline_s,
                        (whole[j].pipeline_s - prompt[j].pipeline_s) / tokens});
    }
    made.kinds.push_back(std::move(stages));
    made.output_tokens.push_back(kind.output_tokens);
  }
  return made;
}

std::vector<float> base_latencies(const cost_model& costs, const pipeline& line,
                                  const std::vector<config::request_kind>& kinds) {
  return service_of(costs, line, kinds, occupancy::max_stage).latency;
}

} // namespace hexgen::scheduler
