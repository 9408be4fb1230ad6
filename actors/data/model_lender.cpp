#include "actors/data/model_lender.hpp"

#include "compute/files/mapped_file.hpp"
#include "compute/model_digest.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>

namespace hexgen::actors {
namespace {

constexpr std::size_t most_piece_bytes = 1U << 20;
constexpr std::chrono::milliseconds full_queue_nap{5};

} // namespace

model_lender::model_lender(transport::fabric& fabric,
                           std::shared_ptr<const compute::model_file> model,
                           const std::filesystem::path& path, std::string digest, shelf holds)
    : fabric_(fabric), model_(std::move(model)), digest_(std::move(digest)),
      layout_(compute::layout_of(*model_, path)), holds_(std::move(holds)) {
  for (const auto& f : layout_.files) {
    const auto mapped = compute::mapped_file::open(layout_.folder ? path / f.name : path);
    files_[f.name] = {mapped, mapped->bytes()};
  }
  thread_ = std::thread([this] { answer_all(); });
}

model_lender::~model_lender() {
  {
    const std::lock_guard guard(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void model_lender::on_fetch(transport::peer_id from, std::shared_ptr<const transport::frame> f) {
  {
    const std::lock_guard guard(mutex_);
    if (asked_.size() >= most_asked)
      return;
    asked_.emplace_back(from, std::move(f));
  }
  wake_.notify_one();
}

void model_lender::answer_all() {
  std::unique_lock guard(mutex_);
  for (;;) {
    wake_.wait(guard, [this] { return closing_ || !asked_.empty(); });
    if (closing_)
      return;
    const auto [from, f] = std::move(asked_.front());
    asked_.pop_front();
    guard.unlock();
    const auto piece = answer(f->head);
    const bool full = fabric_.send(from, piece) == transport::send_result::would_block;
    guard.lock();
    if (full) { // its link is slow; others are asked for meanwhile
      asked_.emplace_back(from, f);
      wake_.wait_for(guard, full_queue_nap, [this] { return closing_; });
    }
  }
}

transport::frame model_lender::answer(const std::string& head) {
  proto::model_fetch asked;
  proto::model_piece piece;
  transport::frame out;
  out.traffic_class = transport::traffic::bulk;
  out.type = proto::MODEL_PIECE;
  const auto refuse = [&](const std::string& why) {
    piece.set_error(why);
    out.head = piece.SerializeAsString();
    return out;
  };
  if (!asked.ParseFromString(head))
    return refuse("model_fetch: it cannot be read");
  piece.set_id(asked.id());
  if (asked.digest() != digest_)
    return refuse("model_fetch.digest: another model is served here");
  if (!asked.file().empty()) {
    const auto file = files_.find(asked.file());
    if (file == files_.end())
      return refuse("model_fetch.file: the model has no such file");
    const auto bytes = file->second.bytes();
    if (asked.bytes() > most_piece_bytes || asked.offset() > bytes.size() ||
        asked.bytes() > bytes.size() - asked.offset())
      return refuse("model_fetch: bytes past the file's end, or more than 1 MiB");
    const auto index = static_cast<std::uint32_t>(
        std::find_if(layout_.files.begin(), layout_.files.end(),
                     [&](const auto& f) { return f.name == asked.file(); }) -
        layout_.files.begin());
    if (holds_ && !holds_({index, asked.offset(), asked.bytes()}))
      return refuse("model_fetch: these bytes are not here");
    // The frame holds the mapping, not a copy.
    out.payload = {std::make_shared<transport::buffer>(file->second),
                   bytes.subspan(asked.offset(), asked.bytes())};
  } else if (holds_) {
    return refuse("model_fetch: the whole model is not here");
  } else if (!asked.tensor().empty()) {
    const auto* tensor = model_->find(asked.tensor());
    if (tensor == nullptr)
      return refuse("model_fetch.tensor: the model has no such tensor");
    auto& known = tensor_digests_[asked.tensor()];
    if (known.empty())
      known = compute::to_hex(compute::tensor_digest(*tensor));
    piece.set_tensor_digest(known);
  } else {
    piece.set_folder(layout_.folder);
    for (const auto& f : layout_.files) {
      auto* entry = piece.add_files();
      entry->set_name(f.name);
      entry->set_bytes(f.bytes);
    }
    for (const auto& r : layout_.skeleton) {
      auto* range = piece.add_skeleton();
      range->set_file(r.file);
      range->set_offset(r.offset);
      range->set_bytes(r.bytes);
    }
  }
  out.head = piece.SerializeAsString();
  return out;
}

} // namespace hexgen::actors
