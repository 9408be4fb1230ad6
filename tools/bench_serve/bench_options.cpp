#include "tools/bench_serve/bench_options.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <functional>
#include <stdexcept>

namespace hexgen::tools {

namespace {

double number(const std::string& flag, const std::string& text, double lowest, double highest) {
  if (text == "inf" && highest == std::numeric_limits<double>::infinity())
    return highest;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value >= lowest) ||
      !(value <= highest))
    throw std::invalid_argument(flag + " does not take '" + text + "'");
  return value;
}

int whole(const std::string& flag, const std::string& text, int lowest) {
  const double value = number(flag, text, lowest, 1e9);
  if (value != static_cast<int>(value))
    throw std::invalid_argument(flag + " must be a whole number");
  return static_cast<int>(value);
}

void read_url(const std::string& text, bench_options& options) {
  auto rest = text;
  if (rest.rfind("https://", 0) == 0)
    throw std::invalid_argument("--base-url: https is not supported; put a proxy in between");
  if (rest.rfind("http://", 0) == 0)
    rest.erase(0, 7);
  rest = rest.substr(0, rest.find('/'));
  const auto colon = rest.rfind(':');
  options.port = 80;
  if (colon != std::string::npos && rest.find(']', colon) == std::string::npos) {
    const int port = whole("--base-url", rest.substr(colon + 1), 1);
    if (port > 65535)
      throw std::invalid_argument("--base-url: the port is above 65535");
    options.port = static_cast<std::uint16_t>(port);
    rest.resize(colon);
  }
  if (rest.size() > 2 && rest.front() == '[' && rest.back() == ']')
    rest = rest.substr(1, rest.size() - 2);
  if (rest.empty())
    throw std::invalid_argument("--base-url: no host in '" + text + "'");
  options.host = rest;
}

std::vector<std::string> split(const std::string& text, const char* separators) {
  std::vector<std::string> parts;
  std::size_t at = 0;
  while (at <= text.size()) {
    const auto end = std::min(text.size(), text.find_first_of(separators, at));
    if (end > at)
      parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

void read_goodput(const std::string& text, bench_options& options) {
  for (const auto& part : split(text, " ,")) {
    const auto colon = part.find(':');
    const auto name = part.substr(0, colon);
    if (colon == std::string::npos || (name != "ttft" && name != "tpot" && name != "e2el"))
      throw std::invalid_argument("--goodput takes ttft:MS, tpot:MS and e2el:MS, not '" + part +
                                  "'");
    options.goodput_ms[name] = number("--goodput", part.substr(colon + 1), 0, 1e9);
  }
}

struct flag {
  const char* names; // separated by spaces, the first one is shown
  const char* value; // nullptr: a switch
  const char* help;
  std::function<void(bench_options&, const std::string& name, const std::string& value)> set;
};

const std::vector<flag>& flags() {
  using o = bench_options&;
  using s = const std::string&;
  constexpr double inf = std::numeric_limits<double>::infinity();
  static const std::vector<flag> all = {
      {"--base-url --url", "URL", "the endpoint (http://127.0.0.1:8000)",
       [](o x, s, s v) { read_url(v, x); }},
      {"--model", "NAME", "default: the server's first", [](o x, s, s v) { x.model = v; }},
      {"--api-key", "KEY", "default: $HEXGEN_API_KEY", [](o x, s, s v) { x.api_key = v; }},
      {"--num-prompts", "N", "requests to send (100)",
       [](o x, s n, s v) { x.num_prompts = whole(n, v, 1); }},
      {"--request-rate", "R", "requests per second, or inf: all at once (inf)",
       [](o x, s n, s v) { x.request_rate = number(n, v, 1e-6, inf); }},
      {"--burstiness", "B", "1 is Poisson; smaller comes in bursts (1)",
       [](o x, s n, s v) { x.burstiness = number(n, v, 1e-3, 1e6); }},
      {"--max-concurrency", "N", "requests under way at a time (no limit)",
       [](o x, s n, s v) { x.max_concurrency = whole(n, v, 1); }},
      {"--random-input-len --input-len", "N", "prompt tokens (128)",
       [](o x, s n, s v) { x.input_len = whole(n, v, 1); }},
      {"--random-output-len --output-len", "N", "tokens to generate (64)",
       [](o x, s n, s v) { x.output_len = whole(n, v, 1); }},
      {"--random-range-ratio", "R", "lengths uniform in LEN x [1-R, 1+R] (0)",
       [](o x, s n, s v) { x.range_ratio = number(n, v, 0, 0.999); }},
      {"--random-prefix-len", "N", "tokens that all prompts begin with, beside the input (0)",
       [](o x, s n, s v) { x.prefix_len = whole(n, v, 0); }},
      {"--token-ids", "LOW:HIGH", "ids that random prompts are made of (1000:30000)",
       [](o x, s n, s v) {
         const auto colon = v.find(':');
         x.lowest_id = whole(n, v.substr(0, colon), 0);
         x.highest_id = whole(n, colon == std::string::npos ? "" : v.substr(colon + 1), 0);
         if (x.highest_id < x.lowest_id)
           throw std::invalid_argument(n + ": LOW is above HIGH");
       }},
      {"--seed", "N", "of lengths, prompts and arrivals (0)",
       [](o x, s n, s v) { x.seed = static_cast<std::uint64_t>(whole(n, v, 0)); }},
      {"--temperature", "T", "(0)", [](o x, s n, s v) { x.temperature = number(n, v, 0, 2); }},
      {"--ignore-eos", nullptr, "generate all of the output length (the default)",
       [](o x, s, s) { x.ignore_eos = true; }},
      {"--no-ignore-eos", nullptr, "let the model end its answers",
       [](o x, s, s) { x.ignore_eos = false; }},
      {"--warmups --num-warmups", "N", "requests before the measured ones (0)",
       [](o x, s n, s v) { x.warmups = whole(n, v, 0); }},
      {"--timeout", "S", "seconds of one request (600)",
       [](o x, s n, s v) { x.timeout_s = number(n, v, 0.001, 1e6); }},
      {"--goodput", "D…", "deadlines: ttft:MS tpot:MS e2el:MS",
       [](o x, s, s v) { read_goodput(v, x); }},
      {"--slo-ttft-ms", "MS", "sent as x-slo-ttft-ms, and counted as a deadline",
       [](o x, s n, s v) { x.goodput_ms["ttft"] = x.slo_ttft_ms = number(n, v, 1e-3, 1e9); }},
      {"--slo-tpot-ms", "MS", "sent as x-slo-tpot-ms, and counted as a deadline",
       [](o x, s n, s v) { x.goodput_ms["tpot"] = x.slo_tpot_ms = number(n, v, 1e-3, 1e9); }},
      {"--percentiles --metric-percentiles", "P,…", "(50,90,95,99)",
       [](o x, s n, s v) {
         x.percentiles.clear();
         for (const auto& one : split(v, " ,"))
           x.percentiles.push_back(number(n, one, 0, 100));
       }},
      {"--json", nullptr, "print JSON and nothing else on standard output",
       [](o x, s, s) { x.json = true; }},
      {"--save-result --result-filename", "FILE", "write the JSON to FILE as well",
       [](o x, s, s v) { x.result_file = v; }},
      {"--help", nullptr, "this text", [](o x, s, s) { x.help = true; }},
  };
  return all;
}

std::string environment_twin(const std::string& name) {
  std::string twin = "HEXGEN_BENCH_";
  for (const char c : name.substr(2))
    twin += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return twin;
}

} // namespace

bench_options parse_bench_options(const std::vector<std::string>& arguments) {
  bench_options options;
  if (const char* key = std::getenv("HEXGEN_API_KEY"))
    options.api_key = key;
  for (const auto& one : flags()) {
    const auto name = split(one.names, " ").front();
    const char* value = std::getenv(environment_twin(name).c_str());
    if (value != nullptr && (one.value != nullptr || std::string(value) == "1"))
      one.set(options, environment_twin(name), value);
  }
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    auto name = arguments[i];
    const auto equals = name.find('=');
    const bool attached = name.rfind("--", 0) == 0 && equals != std::string::npos;
    auto value = attached ? name.substr(equals + 1) : std::string();
    if (attached)
      name.resize(equals);
    const auto found = std::find_if(flags().begin(), flags().end(), [&](const flag& one) {
      const auto names = split(one.names, " ");
      return std::find(names.begin(), names.end(), name == "-h" ? "--help" : name) != names.end();
    });
    if (found == flags().end())
      throw std::invalid_argument("unknown flag " + name + " (hexgen bench --help lists them)");
    if (found->value != nullptr && !attached) {
      if (i + 1 == arguments.size())
        throw std::invalid_argument(name + " needs a value");
      value = arguments[++i];
      // --goodput ttft:100 tpot:20: several values, as vLLM takes them
      while (name == "--goodput" && i + 1 < arguments.size() && arguments[i + 1][0] != '-')
        value += " " + arguments[++i];
    }
    found->set(options, name, value);
  }
  return options;
}

std::string bench_help() {
  std::string text = "hexgen bench: load against an OpenAI-compatible endpoint, measured as `vllm "
                     "bench serve` does.\n\n";
  for (const auto& one : flags()) {
    std::string left = "  ";
    for (const auto& name : split(one.names, " "))
      left += (left.size() > 2 ? ", " : "") + name;
    if (one.value != nullptr)
      left += std::string(" ") + one.value;
    left.resize(std::max<std::size_t>(left.size() + 2, 44), ' ');
    text += left + one.help + "\n";
  }
  return text;
}

} // namespace hexgen::tools
