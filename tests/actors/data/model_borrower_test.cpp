#include "actors/data/model_borrower.hpp"
#include "actors/data/model_lender.hpp"
#include "compute/model_digest.hpp"
#include "compute/synthetic.hpp"
#include "tests/actors/shell/recording_fabric.hpp"
#include "tests/catch.hpp"
#include "tests/compute/files/model_writer.hpp"
#include "transport/proto/hexgen.pb.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>

using namespace hexgen;
using namespace hexgen::actors;
using namespace std::chrono_literals;
using tests::temporary_folder;

namespace {

/// Brings the lender's answers to a borrower, as the test wants them.
class lending_fabric final : public transport::fabric {
public:
  std::function<void(transport::peer_id, transport::frame)> deliver;
  std::function<void(proto::model_piece&, transport::frame&)> alter; // before it is delivered
  int lose_every = 0;
  std::atomic<std::uint64_t> payload_bytes{0};

  transport::send_result send(transport::peer_id to, transport::frame f) override {
    if (lose_every != 0 && ++sent_ % lose_every == 0)
      return transport::send_result::accepted;
    payload_bytes += f.payload.size();
    if (alter) {
      proto::model_piece m;
      m.ParseFromString(f.head);
      alter(m, f);
      f.head = m.SerializeAsString();
    }
    deliver(to, std::move(f));
    return transport::send_result::accepted;
  }
  void start() override {}
  void stop() override {}
  [[nodiscard]] std::string address() const override { return {}; }
  [[nodiscard]] std::uint64_t incarnation() const override { return 1; }
  void dial(const std::string&) override {}
  void dial_through(transport::peer_id, const std::string&, std::uint64_t) override {}
  void attend(const std::function<bool()>&, std::chrono::microseconds) override {}
  void disconnect(transport::peer_id) override {}
  [[nodiscard]] transport::link_stats stats(transport::peer_id) const override { return {}; }
  [[nodiscard]] std::uint64_t relayed_bytes() const override { return 0; }
  void post(std::function<void()>, std::uint32_t) override {}

private:
  int sent_ = 0;
};

struct two_machines {
  explicit two_machines(bool folder = false, std::chrono::milliseconds patience = 10s) {
    auto config = compute::tiny_config();
    config.layers = 4;
    const auto made = compute::make_synthetic_model(config, compute::tensor_type::f32, 7);
    path = theirs.path() / (folder ? "hf" : "m.gguf");
    if (folder) {
      std::filesystem::create_directory(path);
      tests::write_hf_folder(*made, path, 2);
    } else {
      tests::write_file(path, tests::gguf_bytes(*made));
    }
    model = compute::open_model(path);
    digest = compute::to_hex(compute::model_digest(*model));
    lender.emplace(link, model, path, digest);
    begin(patience);
  }
  void begin(std::chrono::milliseconds patience) {
    borrower.emplace(
        digest, ours.path(),
        [this](transport::peer_id to, transport::frame f) {
          if (deaf)
            return true;
          // The number that it is asked under comes back with its answer.
          auto& asked = to == model_borrower::source ? lender : neighbour;
          asked->on_fetch(to, std::make_shared<const transport::frame>(std::move(f)));
          return true;
        },
        [this] {
          return neighbour ? std::vector<transport::peer_id>{2} : std::vector<transport::peer_id>();
        },
        patience);
    link.deliver = [this](transport::peer_id from, transport::frame f) {
      borrower->on_piece(from, std::make_shared<const transport::frame>(std::move(f)));
    };
  }
  [[nodiscard]] compute::shard part(int first, int layers) const {
    return compute::make_shards(model->config(), first, layers, {1.0})[0];
  }
  ~two_machines() { // their threads use what is below
    lender.reset();
    neighbour.reset();
  }

  temporary_folder theirs, ours;
  std::filesystem::path path;
  lending_fabric link;
  std::shared_ptr<const compute::model_file> model;
  std::string digest;
  bool deaf = false;
  std::optional<model_borrower> borrower;
  std::optional<model_lender> lender, neighbour; // the neighbour is asked first
};

bool same(const compute::tensor_view& a, const compute::tensor_view& b) {
  return a.bytes.size() == b.bytes.size() &&
         std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0;
}

template <class F>
std::string error_of(F what) {
  try {
    what();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("a machine without the model fetches the part that it runs") {
  const bool folder = GENERATE(false, true);
  two_machines two(folder);
  const auto copy = compute::open_model(two.borrower->open());
  CHECK(compute::to_hex(compute::model_digest(*copy)) == two.digest);
  const auto before = two.link.payload_bytes.load();
  CHECK(before < two.model->total_bytes() / 4);

  std::uint64_t told = 0, total = 0;
  two.borrower->bring(*copy, two.part(1, 2), [&](auto done, auto of) {
    told = done;
    total = of;
  });
  CHECK(told == total);
  CHECK(two.link.payload_bytes - before == total);
  std::size_t there = 0;
  for (const auto& t : two.model->tensors()) {
    const bool mine = t.name.starts_with("blk.1.") || t.name.starts_with("blk.2.");
    const bool equal = same(t, *copy->find(t.name));
    INFO(t.name);
    if (mine)
      CHECK(equal);
    else if (t.bytes.size() > compute::digest_sample_bytes && t.columns > 1 && t.rows > 1)
      CHECK(!equal); // not fetched
    there += mine ? 1 : 0;
  }
  CHECK(there > 0);

  SECTION("what is there is not fetched again, in this life or the next") {
    const auto then = two.link.payload_bytes.load();
    two.borrower->bring(*copy, two.part(1, 2), {});
    CHECK(two.link.payload_bytes == then);
    two.begin(10s);
    const auto again = compute::open_model(two.borrower->open());
    const auto opened = two.link.payload_bytes.load();
    two.borrower->bring(*again, two.part(1, 2), {});
    CHECK(two.link.payload_bytes == opened);
  }
  SECTION("what was damaged on disk is fetched again") {
    const auto* t = copy->find("blk.1.ffn_up.weight");
    for (const auto& f : std::filesystem::recursive_directory_iterator(two.ours.path())) {
      if (f.path().extension() != ".gguf" && f.path().extension() != ".safetensors")
        continue;
      std::string zeros(f.file_size() / 2, '\0');
      std::filesystem::resize_file(f.path(), f.file_size()); // keeps the mapping's size
      auto* out = std::fopen(f.path().c_str(), "r+b");
      std::fseek(out, static_cast<long>(f.file_size() / 3), SEEK_SET);
      std::fwrite(zeros.data(), 1, zeros.size(), out);
      std::fclose(out);
    }
    two.begin(10s);
    const auto again = compute::open_model(two.borrower->open());
    two.borrower->bring(*again, two.part(1, 2), {});
    CHECK(same(*two.model->find(t->name), *again->find(t->name)));
  }
}

TEST_CASE("answers that are lost are asked for again") {
  two_machines two(false, 2s);
  two.link.lose_every = 5;
  const auto copy = compute::open_model(two.borrower->open());
  two.borrower->bring(*copy, two.part(0, 4), {});
  for (const auto& t : two.model->tensors())
    CHECK(same(t, *copy->find(t.name)));
}

TEST_CASE("weights other than the lender's digest says are refused") {
  two_machines two;
  const auto copy = compute::open_model(two.borrower->open());
  two.link.alter = [](proto::model_piece&, transport::frame& f) {
    if (f.payload.empty())
      return;
    std::vector<std::byte> bytes(f.payload.bytes().begin(), f.payload.bytes().end());
    bytes.back() ^= std::byte{1};
    f.payload = transport::buffer::copy_of(bytes);
  };
  const auto why = error_of([&] { two.borrower->bring(*copy, two.part(1, 1), {}); });
  CHECK(contains(why, "blk.1."));
  CHECK(contains(why, "digest"));
  two.link.alter = nullptr;
  two.borrower->bring(*copy, two.part(1, 1), {});
  CHECK(same(*two.model->find("blk.1.ffn_up.weight"), *copy->find("blk.1.ffn_up.weight")));
}

TEST_CASE("what a neighbour holds comes from it, and the rest from the source") {
  two_machines two;
  // It has fetched the first two layers itself.
  temporary_folder its;
  std::optional<model_borrower> other;
  other.emplace(two.digest, its.path(), [&](transport::peer_id, transport::frame f) {
    two.lender->on_fetch(0, std::make_shared<const transport::frame>(std::move(f)));
    return true;
  });
  const auto mine = two.link.deliver;
  two.link.deliver = [&](transport::peer_id from, transport::frame f) {
    other->on_piece(from, std::make_shared<const transport::frame>(std::move(f)));
  };
  const auto its_path = other->open();
  const auto its_copy = compute::open_model(its_path);
  other->bring(*its_copy, two.part(0, 2), {});
  two.link.deliver = mine;
  const auto copy = compute::open_model(two.borrower->open());
  const auto before = two.borrower->came_from();
  CHECK(before.others == 0);
  two.neighbour.emplace(two.link, its_copy, its_path, two.digest,
                        [&](const compute::file_range& r) { return other->holds(r); });

  SECTION("each part from where it is") {
    two.borrower->bring(*copy, two.part(1, 2), {});
    const auto after = two.borrower->came_from();
    CHECK(after.others > 0);
    CHECK(after.source > before.source); // layer 2
    for (const auto* t : compute::tensors_of(*two.model, two.part(1, 2)))
      CHECK(same(*t, *copy->find(t->name)));
  }
  SECTION("what it has damaged comes from the source after all") {
    two.link.deliver = [&](transport::peer_id from, transport::frame f) {
      if (from == 2 && !f.payload.empty()) {
        std::vector<std::byte> bytes(f.payload.bytes().begin(), f.payload.bytes().end());
        bytes.back() ^= std::byte{1};
        f.payload = transport::buffer::copy_of(bytes);
      }
      mine(from, std::move(f));
    };
    two.borrower->bring(*copy, two.part(1, 1), {});
    CHECK(two.borrower->came_from().source > before.source);
    for (const auto* t : compute::tensors_of(*two.model, two.part(1, 1)))
      CHECK(same(*t, *copy->find(t->name)));
  }
  SECTION("an answer that somebody else gives is none") {
    two.link.deliver = [&](transport::peer_id from, transport::frame f) {
      if (from == 2)
        two.borrower->on_piece(9, std::make_shared<const transport::frame>(f));
      mine(from, std::move(f));
    };
    two.borrower->bring(*copy, two.part(0, 1), {});
    CHECK(two.borrower->came_from().source == before.source);
  }
  two.neighbour.reset();
}

TEST_CASE("a layout that no model has is refused before anything is written") {
  two_machines two;
  const auto open_with = [&](std::function<void(proto::model_piece&)> change) {
    two.link.alter = [change](proto::model_piece& m, transport::frame&) {
      if (m.files_size() != 0)
        change(m);
    };
    return error_of([&] { (void)two.borrower->open(); });
  };
  for (const char* name : {"../m.gguf", "/etc/passwd", "", ".", "..", ".hidden", "a b", "a\nb"})
    CHECK(contains(open_with([&](auto& m) { m.mutable_files(0)->set_name(name); }), "a name"));
  CHECK(contains(open_with([](auto& m) { m.mutable_files(0)->set_bytes(1ULL << 60); }), "size"));
  CHECK(contains(open_with([](auto& m) { *m.add_files() = m.files(0); }), "files"));
  CHECK(contains(open_with([](auto& m) { m.mutable_skeleton(0)->set_file(9); }), "range"));
  CHECK(contains(open_with([](auto& m) { m.mutable_skeleton(0)->set_offset(~0ULL); }), "range"));
  CHECK(contains(open_with([](auto& m) { m.mutable_skeleton(0)->set_bytes(~0ULL); }), "range"));
  CHECK(std::filesystem::is_empty(two.ours.path() / two.digest));
  two.link.alter = [](proto::model_piece&, transport::frame& f) {
    if (f.payload.size() > 1)
      f.payload = transport::buffer(nullptr, f.payload.bytes().first(1));
  };
  CHECK(contains(error_of([&] { (void)two.borrower->open(); }), "1 bytes where"));
}

TEST_CASE("who waits for a model is not kept waiting for ever") {
  two_machines two(false, 200ms);
  two.deaf = true;
  CHECK(contains(error_of([&] { (void)two.borrower->open(); }), "no machine"));
  two.borrower->close();
  CHECK(contains(error_of([&] { (void)two.borrower->open(); }), "leaving"));
}

TEST_CASE("a lender gives nothing but the model's files") {
  two_machines two;
  std::mutex mutex;
  std::vector<proto::model_piece> answers;
  two.link.deliver = [&](transport::peer_id, transport::frame f) {
    const std::lock_guard guard(mutex);
    answers.emplace_back().ParseFromString(f.head);
  };
  const auto ask = [&](std::function<void(proto::model_fetch&)> fill) {
    proto::model_fetch m;
    m.set_id(1);
    m.set_digest(two.digest);
    fill(m);
    transport::frame f;
    f.head = m.SerializeAsString();
    two.lender->on_fetch(1, std::make_shared<const transport::frame>(std::move(f)));
    for (;;) {
      const std::lock_guard guard(mutex);
      if (answers.empty())
        continue;
      const auto error = answers.back().error();
      answers.clear();
      return error;
    }
  };
  const auto size = std::filesystem::file_size(two.path);
  CHECK(ask([](auto& m) { m.set_file("m.gguf"); }).empty());
  CHECK(contains(ask([](auto& m) { m.set_digest("0"); }), "digest"));
  CHECK(contains(ask([](auto& m) { m.set_file("../m.gguf"); }), "no such file"));
  CHECK(contains(ask([](auto& m) { m.set_tensor("x"); }), "no such tensor"));
  for (const auto& [offset, bytes] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{
           {size, 1}, {size + 1, 0}, {0, (1U << 20) + 1}, {1, size}, {~0ULL, 2}, {2, ~0ULL}})
    CHECK(contains(ask([&, offset = offset, bytes = bytes](auto& m) {
                     m.set_file("m.gguf");
                     m.set_offset(offset);
                     m.set_bytes(bytes);
                   }),
                   "end"));
}
