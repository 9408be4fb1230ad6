#include "actors/core/router_state.hpp"
#include "tests/actors/core/fake_tokenizer.hpp"
#include "tests/catch.hpp"

using namespace hexgen::actors;

namespace {

wire::route route(std::uint64_t replica, std::uint64_t generation, const std::string& node) {
  wire::route r;
  r.replica = replica;
  r.generation = generation;
  r.node = node;
  r.incarnation = 1;
  r.capacity = 100;
  r.kv_blocks = 64;
  return r;
}

wire::routing_table table(std::uint64_t epoch, std::vector<wire::route> routes) {
  wire::routing_table t;
  t.epoch = epoch;
  t.routes = std::move(routes);
  t.missing = t.routes.empty() ? "needs one more device" : "";
  t.settings.max_sequence = 256;
  t.settings.max_running = 3;
  t.settings.max_queued = 1;
  return t;
}

generation_request request(std::string_view prompt = "hello", int max_tokens = 8) {
  generation_request r;
  r.prompt = hexgen::tests::byte_tokenizer().encode(prompt, false, false);
  r.params.max_tokens = max_tokens;
  return r;
}

wire::token_chunk chunk(const wire::submit& to, int index, std::string_view text,
                        bool ends = false) {
  wire::token_chunk c;
  c.request = to.request;
  c.attempt = to.attempt;
  c.index = index;
  for (const char ch : text) {
    wire::sampled s;
    s.index = index++;
    s.token.id = static_cast<unsigned char>(ch);
    c.tokens.push_back(s);
  }
  if (ends)
    c.tokens.back().token.ends = c.tokens.back().token.ends_by_length = true;
  return c;
}

wire::request_failed failed(const wire::submit& to, bool retry, std::uint32_t status) {
  return {to.request, to.attempt, retry, status, "because"};
}

template <class T>
std::vector<T> only(const router_effects& effects) {
  std::vector<T> out;
  for (const auto& e : effects)
    if (const auto* t = std::get_if<T>(&e))
      out.push_back(*t);
  return out;
}

struct fixture {
  fixture() : router(router_options{}) {
    router.set_tokenizer(std::make_shared<hexgen::tests::byte_tokenizer>());
    router.node_up("a", 1, 0);
    router.node_up("b", 1, 0);
    router.routing_table(table(1, {route(1, 1, "a"), route(2, 2, "b")}), 0);
  }
  wire::submit submit_one(ticket_id ticket, generation_request r = request()) {
    const auto sent = only<send_submit>(router.submit(ticket, std::move(r), 0));
    REQUIRE(sent.size() == 1);
    return sent[0].message;
  }
  router_state router;
};

} // namespace

TEST_CASE_METHOD(fixture, "a request streams its text and ends once") {
  const auto m = submit_one(1);
  CHECK(m.attempt == 0);
  auto events = only<deliver_event>(router.token_chunk(chunk(m, 0, "ab"), 1));
  REQUIRE(events.size() == 1);
  CHECK(events[0].event.text == "ab");
  CHECK(events[0].event.completion_tokens == 2);
  CHECK(events[0].event.prompt_tokens == 5);
  events = only<deliver_event>(router.token_chunk(chunk(m, 2, "c", true), 1));
  REQUIRE(events.size() == 1);
  CHECK(events[0].event.finish_reason == "length");
  CHECK(router.token_chunk(chunk(m, 3, "d"), 1).empty());
  CHECK(router.stats().sequences == 0);
  CHECK(router.cancel(1, 1).empty());
}

TEST_CASE_METHOD(fixture, "a lost replica's requests go on elsewhere after their last token") {
  const auto m = submit_one(1);
  router.token_chunk(chunk(m, 0, "ab"), 1);
  const auto moved = only<send_submit>(router.node_down(m.replica == 1 ? "a" : "b", 1, 2));
  REQUIRE(moved.size() == 1);
  CHECK(moved[0].message.replica != m.replica);
  CHECK(moved[0].message.attempt == 1);
  CHECK(moved[0].message.emitted == std::vector<int>{'a', 'b'});
  CHECK(router.token_chunk(chunk(m, 2, "x"), 3).empty()); // late, of the old attempt
  const auto events = only<deliver_event>(router.token_chunk(chunk(moved[0].message, 2, "c"), 3));
  REQUIRE(events.size() == 1);
  CHECK(events[0].event.text == "c");
  CHECK(events[0].event.completion_tokens == 3);
  CHECK(router.stats().stale_chunks == 1);
}

TEST_CASE_METHOD(fixture, "a stranger under a node's name takes nothing from it") {
  const auto m = submit_one(1);
  const std::string owner = m.replica == 1 ? "a" : "b";
  router.token_chunk(chunk(m, 0, "ab"), 1);
  CHECK(only<send_submit>(router.node_up(owner, 2, 2)).empty()); // another incarnation's connection
  CHECK(only<send_submit>(router.node_down(owner, 2, 3)).empty());
  const auto events = only<deliver_event>(router.token_chunk(chunk(m, 2, "c"), 4));
  REQUIRE(events.size() == 1);
  CHECK(events[0].event.text == "c");
  CHECK(only<send_submit>(router.node_down(owner, 1, 5)).size() == 1);
}

TEST_CASE_METHOD(fixture, "without a replica a request waits for the next plan") {
  const auto m = submit_one(1);
  router.token_chunk(chunk(m, 0, "ab"), 1);
  router.node_down("a", 1, 2);
  CHECK(only<send_submit>(router.node_down("b", 1, 2)).empty());
  CHECK(router.stats().waiting == 1);
  CHECK(router.tick(1'000'000).empty());
  router.routing_table(table(2, {route(3, 7, "c")}), 1'000'000);
  const auto resumed = only<send_submit>(router.node_up("c", 1, 1'100'000));
  REQUIRE(resumed.size() == 1);
  CHECK(resumed[0].node == "c");
  CHECK(resumed[0].message.generation == 7);
  CHECK(resumed[0].message.emitted.size() == 2);
  CHECK(router.stats().waiting == 0);
}

TEST_CASE_METHOD(fixture, "who waits too long gets an error, and nothing after it") {
  const auto m = submit_one(1);
  router.token_chunk(chunk(m, 0, "ab"), 1);
  submit_one(2);
  router.node_down("a", 1, 2);
  router.node_down("b", 1, 2);
  CHECK(router.tick(29'000'000).empty());
  const auto refused = only<refuse_submit>(router.tick(31'000'000)); // it had shown nothing yet
  REQUIRE(refused.size() == 1);
  CHECK(refused[0].ticket == 2);
  CHECK(refused[0].why.status == 503);
  // The half of an answer is worth a longer wait.
  CHECK(router.tick(299'000'000).empty());
  const auto events = only<deliver_event>(router.tick(301'000'000));
  REQUIRE(events.size() == 1);
  CHECK(events[0].event.error_status == 503);
  CHECK(router.stats().sequences == 0);
}

TEST_CASE_METHOD(fixture, "a gap is not believed: the request is sent again") {
  const auto m = submit_one(1);
  router.token_chunk(chunk(m, 0, "ab"), 1);
  const auto effects = router.token_chunk(chunk(m, 3, "d"), 2);
  CHECK(only<deliver_event>(effects).empty());
  CHECK(only<send_cancel>(effects).size() == 1);
  const auto again = only<send_submit>(effects);
  REQUIRE(again.size() == 1);
  CHECK(again[0].message.attempt == 1);
  CHECK(again[0].message.emitted.size() == 2);
}

TEST_CASE_METHOD(fixture, "sequences on a generation that the table no longer names move") {
  const auto m = submit_one(1);
  auto routes = std::vector{route(1, 1, "a"), route(2, 2, "b")};
  routes[m.replica - 1].draining = true;
  CHECK(router.routing_table(table(2, routes), 1).empty()); // draining ones go on
  CHECK(submit_one(2).replica != m.replica);
  routes.erase(routes.begin() + static_cast<std::ptrdiff_t>(m.replica) - 1);
  const auto effects = router.routing_table(table(3, routes), 2);
  CHECK(only<send_cancel>(effects).size() == 1);
  REQUIRE(only<send_submit>(effects).size() == 1);
  CHECK(router.routing_table(table(2, {}), 3).empty()); // an old table
  CHECK(router.not_ready().empty());
}

TEST_CASE_METHOD(fixture, "a stop string ends the answer and the replica is told") {
  auto r = request();
  r.stop = {"END"};
  const auto m = submit_one(1, std::move(r));
  const auto effects = router.token_chunk(chunk(m, 0, "okENDmo"), 1);
  const auto events = only<deliver_event>(effects);
  REQUIRE(events.size() == 1);
  CHECK(events[0].event.text == "ok");
  CHECK(events[0].event.finish_reason == "stop");
  CHECK(only<send_cancel>(effects).size() == 1);
}

TEST_CASE_METHOD(fixture, "an answer that began in another gateway goes on after its tokens") {
  auto r = request();
  r.stop = {"cdX"};
  r.emitted = {'a', 'b', 'c'}; // of the last one nothing was shown
  const auto m = submit_one(1, r);
  CHECK(m.emitted == r.emitted);
  CHECK(only<deliver_event>(router.token_chunk(chunk(m, 3, "d"), 1)).empty());
  const auto events = only<deliver_event>(router.token_chunk(chunk(m, 4, "e"), 1));
  REQUIRE(events.size() == 1);
  CHECK(events[0].event.text == "cde");
  CHECK(events[0].event.completion_tokens == 5);
  CHECK(events[0].event.taken == std::vector<hexgen::compute::token_id>{'d', 'e'});
  router.routing_table(table(2, {}), 2);
  CHECK(only<refuse_submit>(router.submit(3, r, 2)).empty()); // it waits although nothing serves
  CHECK(router.stats().waiting == 2);
  r.params.max_tokens = 3; // nothing is left of it
  const auto refused = only<refuse_submit>(router.submit(2, r, 1));
  REQUIRE(refused.size() == 1);
  CHECK(refused[0].why.status == 400);
}

TEST_CASE_METHOD(fixture, "each choice has a journal of its own") {
  auto r = request();
  r.choices = 3;
  const auto sent = only<send_submit>(router.submit(1, std::move(r), 0));
  REQUIRE(sent.size() == 3);
  CHECK(sent[2].message.params.choice == 2);
  CHECK(sent[0].message.request != sent[1].message.request);
  const auto events = only<deliver_event>(router.token_chunk(chunk(sent[1].message, 0, "x"), 1));
  CHECK(events.at(0).event.choice == 1);
  CHECK(only<send_cancel>(router.cancel(1, 2)).size() == 3);
  CHECK(router.stats().sequences == 0);
}

TEST_CASE_METHOD(fixture, "a request's wait is the router's and its replica's together") {
  router.node_down("a", 1, 0);
  router.node_down("b", 1, 0);
  CHECK(router.submit(1, request(), 1'000'000).empty());
  const auto sent = only<send_submit>(router.node_up("a", 1, 1'200'000));
  REQUIRE(sent.size() == 1);
  auto first = chunk(sent[0].message, 0, "a");
  first.queued_us = 50'000;
  auto events = only<deliver_event>(router.token_chunk(first, 1'300'000));
  CHECK(events.at(0).event.queued_s == Approx(0.25));
  // A replica cannot say that it waited longer than since it was asked.
  const auto other = only<send_submit>(router.submit(2, request(), 2'000'000));
  auto liar = chunk(other.at(0).message, 0, "a");
  liar.queued_us = std::uint64_t{1} << 60U;
  events = only<deliver_event>(router.token_chunk(liar, 2'100'000));
  CHECK(events.at(0).event.queued_s == Approx(0.1));
}

TEST_CASE_METHOD(fixture, "busy is said early and in the right words") {
  for (ticket_id t = 1; t <= 8; ++t)
    submit_one(t);
  const auto status = [&](generation_request r) {
    const auto refused = only<refuse_submit>(router.submit(99, std::move(r), 0));
    return refused.empty() ? 0 : refused[0].why.status;
  };
  CHECK(status(request()) == 429);
  router.cancel(1, 0);
  CHECK(status(request(std::string(256, 'x'))) == 400);
  router.routing_table(table(2, {}), 0);
  const auto refused = only<refuse_submit>(router.submit(99, request(), 0));
  REQUIRE(refused.size() == 1);
  CHECK(refused[0].why.status == 503);
  CHECK(refused[0].why.message == "needs one more device");
  CHECK(refused[0].why.retry_after_s >= 1);
}

TEST_CASE_METHOD(fixture, "while a generation makes way for the next, new requests wait") {
  auto none = table(2, {});
  none.switching = true;
  router.routing_table(none, 0);
  CHECK(router.submit(1, request(), 0).empty());
  auto hasty = request();
  hasty.ttft_deadline_ms = 500;
  CHECK(router.submit(2, hasty, 0).empty());
  CHECK(router.stats().waiting == 2);
  CHECK(router.tick(400'000).empty());
  const auto refused = only<refuse_submit>(router.tick(600'000)); // not past its own deadline
  REQUIRE(refused.size() == 1);
  CHECK(refused[0].ticket == 2);
  CHECK(refused[0].why.status == 503);
  const auto sent =
      only<send_submit>(router.routing_table(table(3, {route(1, 9, "a")}), 1'000'000));
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].message.generation == 9);
  CHECK(sent[0].message.attempt == 0);
}

TEST_CASE_METHOD(fixture, "a full replica passes a newcomer on; two full ones refuse it") {
  const auto m = submit_one(1);
  const auto second = only<send_submit>(router.request_failed(failed(m, false, 429), 1));
  REQUIRE(second.size() == 1);
  CHECK(second[0].message.replica != m.replica);
  CHECK(second[0].message.attempt == 0); // still a newcomer
  const auto refused =
      only<refuse_submit>(router.request_failed(failed(second[0].message, false, 429), 1));
  REQUIRE(refused.size() == 1);
  CHECK(refused[0].why.status == 429);
  CHECK(only<refuse_submit>(router.submit(2, request(), 1)).size() == 1);
  CHECK(only<send_submit>(router.submit(3, request(), 100'000)).size() == 1);
}

TEST_CASE_METHOD(fixture, "a replica that gave a request back is left alone for a while") {
  const auto m = submit_one(1);
  const auto second = only<send_submit>(router.request_failed(failed(m, true, 503), 1));
  REQUIRE(second.size() == 1);
  CHECK(second[0].message.replica != m.replica);
  CHECK(second[0].message.attempt == 1);
  CHECK(only<send_submit>(router.request_failed(failed(second[0].message, true, 503), 1)).empty());
  CHECK(router.tick(10'000).empty());
  CHECK(only<send_submit>(router.tick(100'000)).size() == 1);
}

TEST_CASE_METHOD(fixture, "a final failure reaches the client as it is") {
  const auto m = submit_one(1);
  router.token_chunk(chunk(m, 0, "a"), 1);
  const auto events = only<deliver_event>(router.request_failed(failed(m, false, 400), 1));
  REQUIRE(events.size() == 1);
  CHECK(events[0].event.error_status == 400);
  const auto other = submit_one(2);
  const auto refused = only<refuse_submit>(router.request_failed(failed(other, false, 400), 1));
  REQUIRE(refused.size() == 1);
  CHECK(refused[0].why.status == 400);
}

TEST_CASE_METHOD(fixture, "a restarted coordinator moves nothing before it has heard of all") {
  const auto m = submit_one(1);
  router.coordinator_changed(1'000'000);
  CHECK(router.routing_table(table(0, {}), 1'100'000).empty()); // it counts anew and knows nobody
  CHECK(only<deliver_event>(router.token_chunk(chunk(m, 0, "a"), 1'200'000)).size() == 1);
  CHECK(router.routing_table(table(1, {route(1, 1, "a"), route(2, 2, "b")}), 2'000'000).empty());
  CHECK(router.tick(7'000'000).empty());
  router.coordinator_changed(8'000'000);
  router.routing_table(table(0, {route(3 - m.replica, 3 - m.replica, m.replica == 1 ? "b" : "a")}),
                       8'100'000);
  CHECK(only<send_submit>(router.tick(9'000'000)).empty());
  CHECK(only<send_submit>(router.tick(14'000'000)).size() == 1); // now it is believed
}

TEST_CASE_METHOD(fixture,
                 "a restarted coordinator refuses no newcomer before it has heard of all") {
  router.coordinator_changed(1'000'000);
  router.routing_table(table(0, {}), 1'010'000);
  CHECK(router.not_ready() == ""); // those that served go on
  CHECK(only<send_submit>(router.submit(1, request(), 1'020'000)).size() == 1);
  router.node_down("a", 1, 1'030'000);
  router.node_down("b", 1, 1'030'000);
  CHECK(router.submit(2, request(), 1'040'000).empty()); // whoever is unreachable is waited for
  CHECK(router.stats().waiting == 2);
  CHECK(router.tick(6'500'000).empty()); // now it is believed
  CHECK(router.not_ready() == "needs one more device");
  CHECK(only<refuse_submit>(router.submit(3, request(), 6'600'000)).size() == 1);
  CHECK(only<refuse_submit>(router.tick(32'000'000)).size() == 2);
}
