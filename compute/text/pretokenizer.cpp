#include "compute/text/pretokenizer.hpp"

#include <array>
#include <stdexcept>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace hexgen::compute {

namespace {

// Unicode's White_Space. PCRE2's own \s also takes U+180E, which lost that property.
constexpr const char* white_space =
    R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

constexpr const char* gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::uint32_t match_limit = 10'000'000;
constexpr std::uint32_t heap_limit_kib = 64 * 1024;
constexpr std::size_t jit_stack_max_bytes = 4 * 1024 * 1024;

// `\s` and `\S` written out, inside a class and outside.
std::string expand_spaces(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's')
        out += in_class ? white_space : "[" + std::string(white_space) + "]";
      else if (next == 'S' && !in_class)
        out += "[^" + std::string(white_space) + "]";
      else
        out.append({c, next});
      continue;
    }
    if (c == '[')
      in_class = true;
    else if (c == ']')
      in_class = false;
    out += c;
  }
  return out;
}

struct match_context_free {
  void operator()(pcre2_match_context* c) const { pcre2_match_context_free(c); }
  void operator()(pcre2_jit_stack* s) const { pcre2_jit_stack_free(s); }
  void operator()(pcre2_match_data* d) const { pcre2_match_data_free(d); }
  void operator()(pcre2_code* c) const { pcre2_code_free(c); }
};
template <class T>
using owned = std::unique_ptr<T, match_context_free>;

// What matching needs besides the pattern; one for each thread, for patterns are shared.
struct match_state {
  owned<pcre2_match_context> context{pcre2_match_context_create(nullptr)};
  owned<pcre2_match_data> data{pcre2_match_data_create(1, nullptr)};
  owned<pcre2_jit_stack> stack{pcre2_jit_stack_create(32 * 1024, jit_stack_max_bytes, nullptr)};

  match_state() {
    if (!context || !data)
      throw std::bad_alloc();
    pcre2_set_match_limit(context.get(), match_limit);
    pcre2_set_heap_limit(context.get(), heap_limit_kib);
    if (stack)
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

match_state& this_threads_state() {
  thread_local match_state state;
  return state;
}

} // namespace

class pretokenizer::compiled_rule {
public:
  explicit compiled_rule(const split_rule& rule)
      : drop_matches_(rule.drop_matches), drop_rest_(rule.drop_rest) {
    const auto pattern = rule.literal ? rule.pattern : expand_spaces(rule.pattern);
    const std::uint32_t options = PCRE2_UTF | (rule.literal ? PCRE2_LITERAL : PCRE2_UCP);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options,
                              &error, &offset, nullptr));
    if (!code_) {
      std::array<PCRE2_UCHAR, 128> text{};
      pcre2_get_error_message(error, text.data(), text.size());
      throw std::invalid_argument("pattern '" + rule.pattern +
                                  "': " + reinterpret_cast<const char*>(text.data()));
    }
    // Without just-in-time compilation the interpreter gives the same matches.
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  void split(std::string_view text, std::vector<std::string_view>& words) const {
    auto& state = this_threads_state();
    std::size_t done = 0;
    std::size_t from = 0;
    while (from < text.size()) {
      const int rc =
          pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                      PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, state.data.get(), state.context.get());
      if (rc == PCRE2_ERROR_NOMATCH)
        break;
      if (rc < 0)
        throw std::runtime_error("splitting the text into words failed (PCRE2 error " +
                                 std::to_string(rc) + ")");
      const auto* range = pcre2_get_ovector_pointer(state.data.get());
      // \K in a file's pattern could put the begin behind the end, or before what was used.
      if (range[0] < done || range[1] <= range[0] || range[1] > text.size())
        throw std::runtime_error("splitting the text into words failed (match out of order)");
      if (range[0] > done && !drop_rest_)
        words.push_back(text.substr(done, range[0] - done));
      if (!drop_matches_)
        words.push_back(text.substr(range[0], range[1] - range[0]));
      done = from = range[1];
    }
    if (done < text.size() && !drop_rest_)
      words.push_back(text.substr(done));
  }

private:
  owned<pcre2_code> code_;
  bool drop_matches_;
  bool drop_rest_;
};

pretokenizer::pretokenizer(const std::vector<split_rule>& rules) {
  for (const auto& rule : rules)
    rules_.push_back(std::make_unique<compiled_rule>(rule));
}
pretokenizer::~pretokenizer() = default;
pretokenizer::pretokenizer(pretokenizer&&) noexcept = default;
pretokenizer& pretokenizer::operator=(pretokenizer&&) noexcept = default;

std::vector<std::string_view> pretokenizer::split(std::string_view text) const {
  std::vector<std::string_view> words;
  if (text.empty())
    return words;
  words.push_back(text);
  std::vector<std::string_view> finer;
  for (const auto& rule : rules_) {
    finer.clear();
    for (const auto word : words)
      rule->split(word, finer);
    words.swap(finer);
  }
  return words;
}

split_rule gpt2_split_rule() {
  return {gpt2_pattern};
}

std::vector<split_rule> split_rules_of(std::string_view pre) {
  if (pre.empty() || pre == "default" || pre == "gpt-2" || pre == "gpt2")
    return {gpt2_split_rule()};
  if (pre == "smollm" || pre == "starcoder" || pre == "refact" || pre == "command-r" ||
      pre == "codeshell" || pre == "exaone")
    return {{R"(\p{N})"}, gpt2_split_rule()};
  if (pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3" || pre == "dbrx" ||
      pre == "smaug-bpe")
    return {{llama3_pattern}};
  if (pre == "qwen2" || pre == "deepseek-r1-qwen" || pre == "stablelm2")
    return {{qwen2_pattern}};
  throw std::invalid_argument("'" + std::string(pre) +
                              "' is not known (known: default, gpt-2, smollm, starcoder, "
                              "llama-bpe, qwen2 and those that split alike)");
}

} // namespace hexgen::compute
