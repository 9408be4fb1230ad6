#include "compute/sampler.hpp"
#include "compute/sampling/exact_math.hpp"
#include "compute/sampling/philox.hpp"
#include "compute/sampling/selection.hpp"
#include "tests/catch.hpp"
#include "tests/compute/sampling/fake_tokenizer.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

using namespace hexgen::compute;

namespace {

constexpr int vocab = 300;
constexpr token_id eos = 0;
constexpr float infinity = std::numeric_limits<float>::infinity();

std::shared_ptr<const tokenizer> letters() {
  std::vector<std::string> pieces(vocab, "x");
  return std::make_shared<fake_tokenizer>(pieces, std::vector<token_id>{eos});
}

// The "model": logits that depend on everything before.
std::vector<float> logits_after(const std::vector<token_id>& ids, int width = vocab) {
  std::uint64_t state = 77;
  for (const auto id : ids)
    state = state * 6364136223846793005ULL + static_cast<std::uint64_t>(id) + 1;
  std::mt19937_64 random(state);
  std::vector<float> logits(static_cast<std::size_t>(width));
  for (float& l : logits)
    l = static_cast<float>(random() % 2000) / 200.0F - 5.0F;
  return logits;
}

std::vector<token_id> generate(const sampling_params& params, const std::vector<token_id>& prompt,
                               std::vector<token_id> emitted, int tokens) {
  sequence_sampler sampler(params, prompt, emitted, letters());
  while (static_cast<int>(emitted.size()) < tokens) {
    auto all = prompt;
    all.insert(all.end(), emitted.begin(), emitted.end());
    auto logits = logits_after(all);
    emitted.push_back(sampler.next(logits).id);
  }
  return emitted;
}

token_id next_of(const sampling_params& params, std::vector<float> logits,
                 const std::vector<token_id>& prompt = {},
                 const std::vector<token_id>& emitted = {}) {
  sequence_sampler sampler(params, prompt, emitted, letters());
  return sampler.next(logits).id;
}

sampling_params greedy() {
  sampling_params p;
  p.temperature = 0;
  p.max_tokens = 1000;
  return p;
}

} // namespace

TEST_CASE("Philox4x32-10 gives the known answers") {
  using words = std::array<std::uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
  CHECK(uniform_draw(1, 0, 0) != uniform_draw(1, 1, 0));
  CHECK(uniform_draw(1, 0, 0) != uniform_draw(1, 0, 1));
  CHECK(uniform_draw(1, 0, 0) != uniform_draw(2, 0, 0));
}

TEST_CASE("exact_exp is exp, to two units in the last place, and the same for every width") {
  for (float x = -103.0F; x < 88.7F; x += 0.0137F) {
    const double truth = std::exp(static_cast<double>(x));
    const double error = std::abs(static_cast<double>(exact_exp(x)) - truth);
    REQUIRE(error <= std::max(truth * 2.4e-7, 1.5e-45));
  }
  CHECK(exact_exp(0.0F) == 1.0F);
  CHECK(exact_exp(-infinity) == 0.0F);
  CHECK(exact_exp(-200.0F) == 0.0F);
  CHECK(exact_exp(100.0F) == infinity);
  CHECK(std::isnan(exact_exp(std::nanf(""))));
  // The bits that every machine must give.
  CHECK(std::bit_cast<std::uint32_t>(exact_exp(1.0F)) == 0x402df854U);
  CHECK(std::bit_cast<std::uint32_t>(exact_exp(-1.0F)) == 0x3ebc5ab2U);
  std::vector<float> x = logits_after({1, 2}, 1003);
  std::vector<float> out(x.size());
  exact_exp_shifted(x, 1.5F, out);
  for (std::size_t i = 0; i < x.size(); ++i)
    REQUIRE(std::bit_cast<std::uint32_t>(out[i]) ==
            std::bit_cast<std::uint32_t>(exact_exp(x[i] - 1.5F)));
}

TEST_CASE("greedy takes the highest logit, the lower id of equals") {
  std::vector<float> logits(vocab, 0.0F);
  logits[7] = logits[200] = 3.0F;
  CHECK(next_of(greedy(), logits) == 7);
  logits[299] = 3.5F;
  CHECK(next_of(greedy(), logits) == 299);
}

TEST_CASE("a seeded draw follows the softmax") {
  std::vector<float> weights = {1, 2, 3, 4};
  std::map<token_id, int> counts;
  token_selector selector;
  for (std::uint64_t p = 0; p < 40'000; ++p) {
    std::vector<float> logits;
    for (const float w : weights)
      logits.push_back(std::log(w));
    ++counts[selector.draw(logits, {}, uniform_draw(5, 0, p))];
  }
  for (token_id id = 0; id < 4; ++id)
    CHECK(std::abs(counts[id] - 4000 * (id + 1)) < 300); // 5 standard deviations
}

TEST_CASE("filters keep exactly the tokens that they promise") {
  const auto kept = [](selection_limits limits, std::vector<float> weights) {
    std::map<token_id, int> counts;
    token_selector selector;
    for (int i = 0; i < 1000; ++i) {
      std::vector<float> logits;
      for (const float w : weights)
        logits.push_back(std::log(w));
      ++counts[selector.draw(logits, limits, i / 1000.0)];
    }
    std::vector<token_id> ids;
    for (const auto& [id, n] : counts)
      ids.push_back(id);
    return ids;
  };
  using ids = std::vector<token_id>;
  const std::vector<float> w = {1, 5, 2, 4, 8}; // of 20
  CHECK(kept({1, 2, 1, 0}, w) == ids{1, 4});
  CHECK(kept({1, 0, 0.60F, 0}, w) == ids{1, 4});    // 8 + 5 = 0.65 >= 0.60
  CHECK(kept({1, 0, 0.70F, 0}, w) == ids{1, 3, 4}); // needs the 4 as well
  CHECK(kept({1, 0, 1, 0.45F}, w) == ids{1, 3, 4}); // at least 0.45 * 8 = 3.6
  CHECK(kept({1, 3, 0.75F, 0}, w) == ids{1, 4});    // of 17: 13 / 17 >= 0.75
  CHECK(kept({1, 0, 1e-6F, 0}, w) == ids{4});
  CHECK(kept({1, 1, 1, 0}, w) == ids{4});
  CHECK(kept({1, 99, 1, 0}, w) == ids{0, 1, 2, 3, 4});
  // Ties at the edge of top-k: lower ids stay.
  CHECK(kept({1, 2, 1, 0}, {3, 3, 3}) == ids{0, 1});
}

TEST_CASE("top-p over a large vocabulary is the smallest sufficient prefix") {
  for (int round = 0; round < 5; ++round) {
    const auto logits = logits_after({round}, 5000);
    std::vector<scored_token> sorted;
    double total = 0;
    const float high = *std::max_element(logits.begin(), logits.end());
    for (int i = 0; i < 5000; ++i) {
      sorted.push_back({exact_exp(logits[static_cast<std::size_t>(i)] - high), i});
      total += static_cast<double>(sorted.back().score);
    }
    std::sort(sorted.begin(), sorted.end(), ranks_before);
    std::size_t n = 0;
    double mass = 0;
    while (mass < static_cast<double>(0.9F) * total)
      mass += static_cast<double>(sorted[n++].score);
    const std::set<token_id> allowed = [&] {
      std::set<token_id> ids;
      for (std::size_t i = 0; i < n; ++i)
        ids.insert(sorted[i].id);
      return ids;
    }();
    token_selector selector;
    std::set<token_id> drawn;
    for (int i = 0; i < 4000; ++i) {
      auto copy = logits;
      drawn.insert(selector.draw(copy, {1, 0, 0.9F, 0}, i / 4000.0));
    }
    for (const auto id : drawn)
      REQUIRE(allowed.count(id) == 1);
    // The even sweep meets each token whose share of the kept mass is over 1/4000.
    for (std::size_t i = 0; i + 1 < n; ++i)
      if (static_cast<double>(sorted[i].score) > mass / 3900)
        REQUIRE(drawn.count(sorted[i].id) == 1);
  }
}

TEST_CASE("penalties lower what was said: repetition counts the prompt, the others the output") {
  std::vector<float> logits(vocab, -10.0F);
  logits[10] = 4.0F;
  logits[11] = 3.0F;
  auto p = greedy();
  p.repetition_penalty = 2.0F;
  CHECK(next_of(p, logits, {10}) == 11);
  CHECK(next_of(p, logits, {}, {10}) == 11);
  CHECK(next_of(p, logits, {10, 11}) == 10);
  p = greedy();
  p.presence_penalty = 1.5F;
  CHECK(next_of(p, logits, {10}) == 10);
  CHECK(next_of(p, logits, {}, {10}) == 11);
  p = greedy();
  p.frequency_penalty = 0.6F;
  CHECK(next_of(p, logits, {}, {10}) == 10);
  CHECK(next_of(p, logits, {}, {10, 10}) == 11);
}

TEST_CASE("biases, end ids and limits") {
  std::vector<float> logits(vocab, 0.0F);
  logits[eos] = 9.0F;
  logits[5] = 8.0F;
  logits[6] = 7.0F;
  auto p = greedy();
  sequence_sampler plain(p, {}, {}, letters());
  auto l = logits;
  const auto end = plain.next(l);
  CHECK((end.id == eos && end.ends && !end.ends_by_length));

  p.min_tokens = 2;
  p.stop_ids = {5};
  CHECK(next_of(p, logits) == 6);
  CHECK(next_of(p, logits, {}, {6}) == 6);
  CHECK(next_of(p, logits, {}, {6, 6}) == eos);

  p = greedy();
  p.ignore_eos = true;
  p.stop_ids = {5};
  sequence_sampler on(p, {}, {}, letters());
  l = logits;
  CHECK_FALSE(on.next(l).ends);
  l = logits;
  l[eos] = 0;
  const auto stop = on.next(l);
  CHECK((stop.id == 5 && stop.ends && !stop.ends_by_length));
  CHECK(on.generated() == 2);

  p = greedy();
  p.logit_bias = {{eos, -infinity}, {6, 5.0F}, {100000, 1.0F}, {-3, 1.0F}};
  CHECK(next_of(p, logits) == 6);

  p = greedy();
  p.max_tokens = 1;
  l = logits;
  l[eos] = 0;
  sequence_sampler one(p, {}, {}, letters());
  const auto only = one.next(l);
  CHECK((only.ends && only.ends_by_length));
}

TEST_CASE("logprobs are of the model's own distribution") {
  auto p = greedy();
  p.logprobs = 2;
  p.logit_bias = {{3, 50.0F}};
  std::vector<float> logits = {0.0F, 1.0F, 2.0F, -1.0F};
  sequence_sampler sampler(p, {}, {}, letters());
  const auto t = sampler.next(logits);
  const double sum = std::exp(0.0) + std::exp(1.0) + std::exp(2.0) + std::exp(-1.0);
  CHECK(t.id == 3);
  CHECK(std::abs(static_cast<double>(t.logprob) - (-1.0 - std::log(sum))) < 1e-6);
  REQUIRE(t.top.size() == 2);
  CHECK((t.top[0].id == 2 && t.top[1].id == 1));
  CHECK(std::abs(static_cast<double>(t.top[0].logprob) - (2.0 - std::log(sum))) < 1e-6);
}

TEST_CASE("resumed at any index, a sequence goes on as the undisturbed one") {
  std::vector<sampling_params> kinds(4);
  kinds[0] = greedy();
  kinds[1].seed = 11;
  kinds[2].seed = 12;
  kinds[2].choice = 3;
  kinds[2].top_p = 0.8F;
  kinds[2].top_k = 40;
  kinds[2].repetition_penalty = 1.3F;
  kinds[2].presence_penalty = 0.5F;
  kinds[2].frequency_penalty = 0.7F;
  kinds[3].seed = 13;
  kinds[3].temperature = 0.7F;
  kinds[3].min_p = 0.02F;
  kinds[3].min_tokens = 10;
  kinds[3].logit_bias = {{4, 2.0F}};
  const std::vector<token_id> prompt = {9, 8, 7, 9};
  for (auto& params : kinds) {
    params.max_tokens = 100;
    const auto whole = generate(params, prompt, {}, 30);
    for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
      const std::vector<token_id> emitted(whole.begin(),
                                          whole.begin() + static_cast<std::ptrdiff_t>(cut));
      REQUIRE(generate(params, prompt, emitted, 30) == whole);
    }
  }
  CHECK(generate(kinds[1], prompt, {}, 30) != generate(kinds[3], prompt, {}, 30));
}

TEST_CASE("broken logits still lead to a token") {
  const float nan = std::nanf("");
  for (const float temperature : {0.0F, 1.0F, 0.01F})
    for (const float bad : {nan, infinity, -infinity, std::numeric_limits<float>::max()}) {
      sampling_params p;
      p.temperature = temperature;
      p.logprobs = 1;
      p.repetition_penalty = 1.5F;
      std::vector<float> all(vocab, bad);
      const auto id = next_of(p, all, {1, 2});
      CHECK((id >= 0 && id < vocab));
      std::vector<float> one(vocab, 0.0F);
      one[3] = bad;
      const auto other = next_of(p, one, {1, 2});
      CHECK((other >= 0 && other < vocab));
      if (bad > 0 && temperature == 0)
        CHECK(other == 3);
      if (!(bad > 0))
        CHECK(other != 3);
    }
  sequence_sampler sampler(greedy(), {}, {}, letters());
  CHECK_THROWS_AS(sampler.next({}), std::invalid_argument);
}

TEST_CASE("parameters out of range are refused by name") {
  const auto refused = [](auto change) {
    sampling_params p;
    change(p);
    CHECK_THROWS_AS(sequence_sampler(p, {}, {}, letters()), std::invalid_argument);
  };
  refused([](auto& p) { p.temperature = -1; });
  refused([](auto& p) { p.temperature = infinity; });
  refused([](auto& p) { p.top_p = 0; });
  refused([](auto& p) { p.top_p = std::nanf(""); });
  refused([](auto& p) { p.min_p = 2; });
  refused([](auto& p) { p.repetition_penalty = 0; });
  refused([](auto& p) { p.presence_penalty = std::nanf(""); });
  refused([](auto& p) { p.logit_bias = {{1, std::nanf("")}}; });
}

TEST_CASE("a token that a device chose by choice() leaves the sampler as its own would") {
  sampling_params p;
  p.temperature = 0.8F;
  p.top_p = 0.9F;
  p.top_k = 40;
  p.min_p = 0.01F;
  p.seed = 5;
  p.ignore_eos = true;
  p.max_tokens = 50;
  const auto tokens = letters();
  sequence_sampler own(p, std::vector<token_id>{3}, {}, tokens);
  sequence_sampler device(p, std::vector<token_id>{3}, {}, tokens);
  token_selector selector;
  std::vector<token_id> ids{3};
  for (int i = 0; i < 50; ++i) {
    auto logits = logits_after(ids);
    auto copy = logits;
    const auto expected = own.next(logits);
    const auto c = device.choice();
    REQUIRE(c);
    const auto id = selector.draw(copy, {c->temperature, c->top_k, c->top_p, c->min_p}, c->uniform);
    const auto got = device.take(id);
    CHECK(got.id == expected.id);
    CHECK(got.ends == expected.ends);
    CHECK(got.ends_by_length == expected.ends_by_length);
    ids.push_back(expected.id);
  }
  CHECK(device.generated() == 50);
}

TEST_CASE("what takes more than the logits is not left to a device") {
  const auto refuses = [](auto change) {
    sampling_params p;
    change(p);
    return !sequence_sampler(p, std::vector<token_id>{3}, {}, letters()).choice().has_value();
  };
  CHECK_FALSE(refuses([](sampling_params&) {}));
  CHECK(refuses([](sampling_params& p) { p.frequency_penalty = 0.1F; }));
  CHECK(refuses([](sampling_params& p) { p.repetition_penalty = 1.1F; }));
  CHECK(refuses([](sampling_params& p) { p.logit_bias = {{4, 1.0F}}; }));
  CHECK(refuses([](sampling_params& p) { p.min_tokens = 1; }));
  CHECK(refuses([](sampling_params& p) { p.logprobs = 0; }));
  CHECK(refuses([](sampling_params& p) { p.top_k = most_top_k + 1; }));
  CHECK(refuses([](sampling_params& p) { p.grammar = "json_object"; }));
}
