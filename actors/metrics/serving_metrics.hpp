// What the gateway measures of its requests, under the names and buckets that vLLM's dashboards key
// on, with Hexgen's own beside them.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace hexgen::actors {

/// Thread-safe. All intervals are between monotonic readings of this process, in seconds.
class serving_metrics {
public:
  explicit serving_metrics(std::string model_name);
  ~serving_metrics();
  serving_metrics(const serving_metrics&) = delete;
  serving_metrics& operator=(const serving_metrics&) = delete;

  /// Unknown paths and methods are counted under "other": clients cannot make labels.
  void http_request(std::string_view handler, std::string_view method, int status);

  void submitted(int prompts, int choices, int max_tokens);
  /// A request's first token came. `queued_s` < 0: not known.
  void first_token(double since_submit_s, double queued_s);
  /// `tokens` came together, `gap_s` after the ones before.
  void inter_token(double gap_s, int tokens);
  void tokens(int prompt, int generated);
  void prefix_cache(int queried_tokens, int hit_tokens);

  struct finished {
    bool saw_first_token = false;
    double e2e_s = 0;
    double decode_s = 0;  // first to last token
    double queued_s = -1; // < 0: not known
    int prompt_tokens = 0;
    int generated_tokens = 0; // of all choices
    int longest_choice = 0;   // generated tokens of the longest
    std::string_view reason;  // stop, length, abort or error
    /// Of a request that named deadlines: 1 met, 0 missed, -1 none named.
    int ttft_slo = -1;
    int tpot_slo = -1;
  };
  /// Ends what `submitted` began.
  void done(const finished& request);
  /// Ends what `submitted` began: nothing was served, so deadlines it named were missed.
  /// `status`: 429, 503, …
  void refused(int status, bool ttft_deadline, bool tpot_deadline);

  /// Prometheus text.
  [[nodiscard]] std::string text() const;

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace hexgen::actors
