// Any bytes as the body of an API request: a well-formed answer, never a 500, never a crash; what
// is accepted keeps the bounds that the parser promises.
#include "actors/openai/bounds.hpp"
#include "actors/openai/openai_api.hpp"
#include "tests/actors/openai/fake_service.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstdlib>

using namespace hexgen;

namespace {

void check(bool holds) {
  if (!holds)
    std::abort();
}

void check_request(const actors::generation_request& r, const actors::served_model& model) {
  const auto& p = r.params;
  check(!r.prompt.empty() && static_cast<int>(r.prompt.size()) + p.max_tokens <= model.context);
  for (const auto id : r.prompt)
    check(id >= 0 && id < model.tokens->vocab());
  for (const auto id : p.stop_ids)
    check(id >= 0 && id < model.tokens->vocab());
  for (const auto& [id, bias] : p.logit_bias)
    check(id >= 0 && id < model.tokens->vocab() && bias >= -100 && bias <= 100);
  check(p.temperature >= 0 && p.temperature <= 2 && p.top_p >= 0 && p.top_p <= 1);
  check(p.max_tokens >= 1 && p.min_tokens >= 0 && p.min_tokens <= p.max_tokens);
  check(r.choices >= 1 && r.choices <= actors::bounds::choices);
  check(r.stop.size() <= actors::bounds::stop_strings);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static constexpr const char* paths[] = {"/v1/chat/completions", "/v1/completions", "/tokenize",
                                          "/detokenize"};
  if (size == 0)
    return 0;
  tests::fake_service service;
  actors::serving_metrics metrics("fuzz");
  actors::openai_api api({}, service, metrics);
  service.on_submit = [&](std::uint64_t ticket, const actors::generation_request& r) {
    check_request(r, *service.served);
    for (int c = 0; c < r.choices; ++c)
      service.say(ticket, "x", 1, "stop", c);
    service.drop(ticket);
  };
  actors::api_request request;
  request.path = paths[data[0] % 4];
  request.body.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto sink = std::make_shared<tests::recorded_sink>();
  api.handle(request, sink);
  check(sink->closed || sink->reply.status == 200 ||
        (sink->reply.status >= 400 && sink->reply.status < 500));
  if (sink->reply.status != 0)
    check(!nlohmann::json::parse(sink->reply.body, nullptr, false).is_discarded());
  check(api.running() == 0);
  return 0;
}
