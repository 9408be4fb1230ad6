#include "actors/openai/openai_api.hpp"

#include "actors/openai/answer_journal.hpp"
#include "actors/openai/api_error.hpp"
#include "actors/openai/api_key.hpp"
#include "actors/openai/cluster_page.hpp"
#include "actors/openai/completion_request.hpp"
#include "actors/openai/generation_job.hpp"
#include "actors/openai/json_fields.hpp"
#include "actors/openai/openapi.hpp"
#include "actors/openai/response_format.hpp"
#include "actors/openai/sampling_fields.hpp"
#include "actors/openai/tokenize.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <random>
#include <set>

namespace hexgen::actors {

using nlohmann::json;
using transport::http_reply;

namespace {

constexpr std::size_t most_logged_fields = 64;

http_reply json_reply(std::string body) {
  http_reply reply;
  reply.body = std::move(body);
  return reply;
}

http_reply text_reply(std::string type, std::string body) {
  http_reply reply;
  reply.content_type = std::move(type);
  reply.body = std::move(body);
  return reply;
}

// The client's own id for its logs and ours; nothing when it could spoil a header or a log line.
std::string client_id(const transport::http_headers& headers) {
  const auto* id = transport::find_header(headers, "x-request-id");
  const auto harmless = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  };
  if (id == nullptr || id->empty() || id->size() > 128 ||
      !std::all_of(id->begin(), id->end(), harmless))
    return {};
  return *id;
}

double deadline_ms(const transport::http_headers& headers, const char* name) {
  const auto* text = transport::find_header(headers, name);
  if (text == nullptr)
    return 0;
  double value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc{} || end != text->data() + text->size() || !(value > 0 && value <= 1e9))
    throw bad_parameter(name, std::string(name) + " must be a number of milliseconds above 0");
  return value;
}

std::string hex(std::uint64_t value) {
  std::string text(16, '0');
  for (auto at = text.rbegin(); at != text.rend(); ++at, value >>= 4)
    *at = "0123456789abcdef"[value & 15];
  return text;
}

} // namespace

struct openai_api::impl {
  api_options options;
  generation_service& service;
  serving_metrics& metrics;
  std::shared_ptr<std::atomic<int>> running = std::make_shared<std::atomic<int>>(0);
  std::atomic<bool> draining = false;
  std::mutex mutex; // guards what follows
  std::mt19937_64 random;
  std::set<std::string> logged;

  impl(api_options o, generation_service& s, serving_metrics& m)
      : options(std::move(o)), service(s), metrics(m) {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device(), device()};
    random.seed(seed);
  }

  std::uint64_t draw() {
    const std::lock_guard lock(mutex);
    return random();
  }

  void answer(const api_request& request, const std::shared_ptr<reply_sink>& sink);
  void generate(const api_request& request, const std::shared_ptr<reply_sink>& sink);
  /// The rest of an answer that is in the journal.
  void go_on(const api_request& request, const std::string& after,
             const std::shared_ptr<reply_sink>& sink);
  struct draws {
    std::uint64_t seed = 0;
    std::string answer_id;
    std::int64_t created_s = 0;
  };
  /// Starts a generation; `kept`: the answer that it goes on with, nullptr: a new one.
  void start(const api_request& request, const draws& drawn, const std::string& name,
             const std::shared_ptr<journaled_answer>& kept, std::shared_ptr<reply_sink> sink);
  http_reply post(const std::string& path, const json& body);
  http_reply get(const std::string& path);
  [[nodiscard]] http_reply health() const;
  [[nodiscard]] std::string models() const;
  [[nodiscard]] std::shared_ptr<const served_model> need_model(const json& body) const;
  void log_unknown(const std::vector<std::string>& fields);
};

openai_api::openai_api(api_options options, generation_service& service, serving_metrics& metrics)
    : impl_(std::make_unique<impl>(std::move(options), service, metrics)) {}
openai_api::~openai_api() = default;

void openai_api::drain() {
  impl_->draining = true;
}
int openai_api::running() const {
  return *impl_->running;
}

std::optional<http_reply> openai_api::check_key(const std::string& method, const std::string& path,
                                                const transport::http_headers& headers) const {
  if (impl_->options.api_key.empty() || path == "/health" || path == "/v1/health")
    return std::nullopt;
  const auto* given = transport::find_header(headers, "Authorization");
  // Browsers send Basic by themselves, so it may only read.
  if (given != nullptr && has_key(*given, impl_->options.api_key, method == "GET"))
    return std::nullopt;
  auto reply = error_reply(api_error(401, "authentication_error",
                                     given == nullptr ? "an API key is needed: Authorization: "
                                                        "Bearer KEY"
                                                      : "the API key is wrong",
                                     {}, "invalid_api_key"));
  reply.headers.emplace_back("WWW-Authenticate",
                             path == "/" ? "Basic realm=\"hexgen: the API key as password\""
                                         : "Bearer realm=\"hexgen\"");
  return reply;
}

void openai_api::handle(const api_request& request, std::shared_ptr<reply_sink> sink) {
  try {
    impl_->answer(request, sink);
  } catch (const api_error& e) {
    sink->whole(error_reply(e));
  } catch (const std::exception& e) {
    sink->whole(error_reply(api_error(500, "server_error", e.what())));
  }
}

void openai_api::impl::answer(const api_request& request, const std::shared_ptr<reply_sink>& sink) {
  static const std::set<std::string> gets = {"/",        "/health",      "/v1/health",
                                             "/metrics", "/version",     "/v1/models",
                                             "/cluster", "/openapi.json"};
  static const std::set<std::string> posts = {"/v1/chat/completions", "/v1/completions",
                                              "/tokenize", "/detokenize"};
  const bool is_get = request.method == "GET" || request.method == "HEAD";
  const bool one_model = request.path.rfind("/v1/models/", 0) == 0;
  const bool readable = one_model || gets.count(request.path) > 0;
  if (!readable && posts.count(request.path) == 0)
    throw api_error(404, "invalid_request_error", "no such path: " + request.path, {}, "not_found");
  if (readable ? !is_get : request.method != "POST") {
    auto reply = error_reply(api_error(405, "invalid_request_error",
                                       request.path + " does not take " + request.method, {},
                                       "method_not_allowed"));
    reply.headers.emplace_back("Allow", readable ? "GET, HEAD" : "POST");
    return sink->whole(std::move(reply));
  }
  if (one_model) {
    (void)need_model({{"model", request.path.substr(11)}});
    return sink->whole(json_reply(json::parse(models())["data"][0].dump()));
  }
  if (readable)
    return sink->whole(get(request.path));
  if (request.path == "/v1/chat/completions" || request.path == "/v1/completions")
    return generate(request, sink);
  sink->whole(post(request.path, parse_body(request.body)));
}

http_reply openai_api::impl::get(const std::string& path) {
  if (path == "/metrics")
    return text_reply("text/plain; version=0.0.4", metrics.text() + service.metrics_text());
  if (path == "/version")
    return json_reply(json{{"version", options.version}}.dump());
  if (path == "/v1/models")
    return json_reply(models());
  if (path == "/cluster")
    return json_reply(service.cluster_json());
  if (path == "/openapi.json")
    return json_reply(openapi_json(options.version, !options.api_key.empty()));
  if (path == "/") {
    auto page = text_reply("text/html; charset=utf-8", std::string(cluster_page()));
    page.headers.emplace_back("Content-Security-Policy",
                              "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'");
    return page;
  }
  return health();
}

http_reply openai_api::impl::health() const {
  const auto missing = draining ? std::string("shutting down") : service.not_ready();
  if (missing.empty())
    return json_reply(R"({"status":"ok"})");
  return error_reply(api_error(503, "unavailable_error", missing, {}, "service_unavailable", 1));
}

http_reply openai_api::impl::post(const std::string& path, const json& body) {
  const auto model = need_model(body);
  return json_reply(path == "/tokenize" ? tokenize_json(body, *model)
                                        : detokenize_json(body, *model));
}

std::string openai_api::impl::models() const {
  json list = {{"object", "list"}, {"data", json::array()}};
  if (const auto model = service.model()) {
    auto names = options.aliases;
    names.insert(names.begin(), model->name);
    for (const auto& name : names)
      list["data"].push_back(
          {{"id", name},
           {"object", "model"},
           {"created", model->created_s},
           {"owned_by", "hexgen"},
           {"root", options.model_root.empty() ? model->name : options.model_root},
           {"parent", nullptr},
           {"max_model_len", model->context}});
  }
  return list.dump();
}

std::shared_ptr<const served_model> openai_api::impl::need_model(const json& body) const {
  const auto name = string_field(body, "model");
  auto model = service.model();
  if (!model)
    throw error_of_status(503, {}, "no model is served yet: " + service.not_ready(), 1);
  if (name && *name != model->name &&
      std::find(options.aliases.begin(), options.aliases.end(), *name) == options.aliases.end())
    throw api_error(404, "invalid_request_error",
                    "the model " + *name + " is not served here; " + model->name + " is", "model",
                    "model_not_found");
  return model;
}

void openai_api::impl::log_unknown(const std::vector<std::string>& fields) {
  for (const auto& name : fields) {
    {
      const std::lock_guard lock(mutex);
      if (logged.size() >= most_logged_fields || name.size() > 64 || !logged.insert(name).second)
        continue;
    }
    if (options.log)
      options.log("a request has the unknown field " + json(name).dump() + ": ignored");
  }
}

void openai_api::impl::generate(const api_request& request,
                                const std::shared_ptr<reply_sink>& sink) {
  if (draining)
    throw error_of_status(503, {}, "shutting down", 1);
  if (const auto* after = transport::find_header(request.headers, "last-event-id"))
    return go_on(request, *after, sink);
  draws drawn;
  drawn.seed = draw();
  drawn.answer_id =
      (request.path == "/v1/chat/completions" ? "chatcmpl-" : "cmpl-") + hex(draw()) + hex(draw());
  drawn.created_s = std::chrono::duration_cast<std::chrono::seconds>(
                        std::chrono::system_clock::now().time_since_epoch())
                        .count();
  start(request, drawn, client_id(request.headers), nullptr, sink);
}

void openai_api::impl::go_on(const api_request& request, const std::string& after,
                             const std::shared_ptr<reply_sink>& sink) {
  const auto name = client_id(request.headers);
  const auto kept = options.journal ? options.journal->find(name) : nullptr;
  if (!kept)
    throw api_error(404, "invalid_request_error",
                    "Last-Event-ID: nothing is kept of a request " + name +
                        (options.journal ? "" : "; this gateway has no --journal"),
                    "last-event-id", "not_found");
  if (kept->request().path != request.path || kept->request().body != request.body)
    throw api_error(409, "invalid_request_error",
                    "request " + name + " asked something else: send the same path and body",
                    "x-request-id", "conflict");
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(after.data(), after.data() + after.size(), number);
  if (error != std::errc{} || end != after.data() + after.size() ||
      !kept->attach(sink, number, {{"x-request-id", name}}))
    throw bad_parameter("last-event-id",
                        "Last-Event-ID must be the number of an event that " + name + " has sent");
  if (!kept->claim())
    return;
  // The gateway that made it is gone.
  const auto& r = kept->request();
  try {
    start(request, {r.seed, r.answer_id, r.created_s}, name, kept, kept);
  } catch (...) {
    kept->unclaim();
    throw;
  }
}

void openai_api::impl::start(const api_request& request, const draws& drawn,
                             const std::string& name, const std::shared_ptr<journaled_answer>& kept,
                             std::shared_ptr<reply_sink> sink) {
  const bool chat = request.path == "/v1/chat/completions";
  const auto body = parse_body(request.body);
  const auto model = need_model(body);
  auto asked =
      chat ? parse_chat(body, *model, drawn.seed) : parse_completion(body, *model, drawn.seed);
  const auto grammar = read_response_format(body, request.body);
  log_unknown(asked.unknown);

  reply_frame frame;
  frame.id = drawn.answer_id;
  frame.created_s = drawn.created_s;
  frame.model = string_field(body, "model").value_or(model->name);
  frame.chat = chat;
  frame.logprobs = asked.logprobs;
  frame.token_ids = asked.token_ids;
  frame.usage_null = asked.include_usage;
  frame.tokens = model->tokens;
  asked.prompts.front().params.grammar = grammar;
  check_sampler_takes(asked.prompts.front(), *model); // all prompts have the same parameters
  const double ttft_ms = deadline_ms(request.headers, "x-slo-ttft-ms");
  const double tpot_ms = deadline_ms(request.headers, "x-slo-tpot-ms");
  for (auto& one : asked.prompts) {
    one.id = frame.id;
    one.params.grammar = grammar;
    one.ttft_deadline_ms = ttft_ms;
    one.tpot_deadline_ms = tpot_ms;
  }
  const transport::http_headers headers = {{"x-request-id", name.empty() ? frame.id : name}};
  if (kept) {
    asked.prompts.front().emitted = kept->emitted();
  } else if (options.journal && asked.stream && !name.empty() && asked.prompts.size() == 1 &&
             asked.prompts.front().choices == 1) {
    if (auto answer = options.journal->begin(
            name, {request.path, request.body, drawn.seed, drawn.answer_id, drawn.created_s})) {
      (void)answer->attach(sink, 0, headers);
      sink = std::move(answer);
    }
  }
  std::make_shared<generation_job>(service, metrics, std::move(asked), std::move(frame), headers,
                                   std::move(sink), running)
      ->start();
}

} // namespace hexgen::actors
