#include "scheduler/engine/draft_proposer.hpp"
#include "tests/catch.hpp"

using namespace hexgen::scheduler;
using ids = std::vector<token>;

TEST_CASE("drafts are what followed the same tokens before") {
  const draft_proposer p(4);
  const ids text = {1, 2, 3, 4, 5, 9, 1, 2, 3};
  CHECK(p.propose(text, 100) == ids{4, 5, 9, 1});
  CHECK(p.propose(text, 2) == ids{4, 5});
  CHECK(p.propose(text, 0).empty());
  CHECK(p.propose(ids{1, 2, 3}, 100).empty());
  CHECK(p.propose(ids{5, 1, 8, 6, 1}, 100).empty()); // one token is too little
  CHECK(p.propose(ids{}, 100).empty());
  CHECK(draft_proposer(0).propose(text, 100).empty());
}

TEST_CASE("the longest match wins, and of equal ones the latest") {
  const draft_proposer p(2);
  CHECK(p.propose(ids{7, 1, 2, 50, 1, 2, 60, 8, 1, 2}, 9) == ids{60, 8});
  CHECK(p.propose(ids{7, 1, 2, 50, 1, 2, 60, 7, 1, 2}, 9) == ids{50, 1});
}

TEST_CASE("a draft goes on with itself") {
  const draft_proposer p(7);
  CHECK(p.propose(ids{7, 7, 7}, 9) == ids{7, 7, 7, 7, 7, 7, 7});
  CHECK(p.propose(ids{1, 2, 3, 1, 2}, 9) == ids{3, 1, 2, 3, 1, 2, 3});
}

TEST_CASE("drafts are as long as the last one was good") {
  draft_proposer p(8);
  const ids text = {7, 7, 7};
  const auto length = [&] { return p.propose(text, 100).size(); };
  CHECK(length() == 8);
  p.verified(8, 0);
  CHECK(length() == 1);
  p.verified(1, 1);
  CHECK(length() == 3);
  p.verified(3, 3);
  CHECK(length() == 7);
  p.verified(2, 2); // short for want of room
  CHECK(length() == 7);
  p.verified(7, 2);
  CHECK(length() == 5);
}
