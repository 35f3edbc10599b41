#include "parallel/diagnosis.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr size_t kMostNamed = 8;

std::string seconds_text(double seconds) { return join(std::llround(seconds), " s"); }

// "rank 3" or "ranks 3, 5 and 7"
std::string rank_list(const std::vector<int64_t>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  const auto named = std::min(ranks.size(), kMostNamed);
  for (size_t index = 0; index < named; ++index) {
    if (index > 0) text += index + 1 == ranks.size() ? " and " : ", ";
    text += std::to_string(ranks[index]);
  }
  return ranks.size() > named ? join(text, " and ", ranks.size() - named, " more") : text;
}

std::string has(const std::vector<int64_t>& ranks) {
  return rank_list(ranks) + (ranks.size() == 1 ? " has " : " have ");
}

// What a rank that is alive does instead of taking part.
std::string other_work(int64_t rank, const Beat& beat) {
  if (!beat.place.kind.empty())
    return join("rank ", rank, " is in ", describe(beat.place), " instead, for ", seconds_text(beat.seconds));
  return join("rank ", rank, " is alive, but in no collective for ", seconds_text(beat.seconds),
              " (slow: a longer timeout lets it finish; or it waits for something else)");
}

template <class Condition>
std::vector<int64_t> ranks_where(const std::vector<ObservedRank>& ranks, int64_t without, Condition condition) {
  std::vector<int64_t> found;
  for (int64_t rank = 0; rank < static_cast<int64_t>(ranks.size()); ++rank)
    if (rank != without && condition(ranks[rank])) found.push_back(rank);
  return found;
}

}  // namespace

std::string describe(const CollectivePlace& place) {
  return join(place.kind, " ", place.number, " of group ", place.group);
}

std::string beat_text(const Beat& beat) {
  std::ostringstream text;
  text << beat.count << '\n'
       << static_cast<int>(beat.state) << '\n'
       << beat.seconds << '\n'
       << beat.place.number << '\n';
  text << beat.place.kind << '\n' << beat.place.group << '\n';
  for (const auto& [group, number] : beat.started) text << number << ' ' << group << '\n';
  return text.str();
}

Beat parse_beat(const std::string& text) {
  std::istringstream in(text);
  Beat beat;
  int state = 0;
  in >> beat.count >> state >> beat.seconds >> beat.place.number;
  in.ignore();
  std::getline(in, beat.place.kind);
  std::getline(in, beat.place.group);
  SY_CHECK(in && 0 <= state && state <= 2,
           "beat of a rank: expected count, state, seconds, number, collective and group, got \"", text, "\"");
  beat.state = static_cast<Beat::State>(state);
  std::string group;
  for (int64_t number = 0; in >> number && std::getline(in.ignore(), group);) beat.started[group] = number;
  return beat;
}

std::string explain(const CollectivePlace& place, const std::vector<int64_t>& members, int64_t rank,
                    const std::vector<ObservedRank>& ranks) {
  const auto absent = ranks_where(ranks, rank, [](const ObservedRank& other) { return !other.connected; });
  if (!absent.empty()) return has(absent) + "not connected";
  const auto failed =
      ranks_where(ranks, rank, [](const ObservedRank& other) { return other.beat.state == Beat::State::kFailed; });
  if (!failed.empty()) return has(failed) + "ended with an error of its own";
  // Any rank: the members may wait for one that waits for a rank outside this group.
  const auto silent = ranks_where(
      ranks, rank, [](const ObservedRank& other) { return other.silent && other.beat.state == Beat::State::kRunning; });
  if (!silent.empty())
    return join(has(silent), "not been heard of for ", seconds_text(ranks[silent.front()].silent_seconds),
                " (killed, stopped or cut off)");
  const auto ended =
      ranks_where(ranks, rank, [](const ObservedRank& other) { return other.beat.state == Beat::State::kEnded; });
  if (!ended.empty()) return has(ended) + "ended already, without an error: the ranks do not do the same steps";

  std::vector<std::string> findings;
  for (const auto member : members) {
    if (member == rank || findings.size() == kMostNamed) continue;
    const auto& beat = ranks[member].beat;
    const auto started = beat.started.find(place.group);
    const auto number = started == beat.started.end() ? 0 : started->second;
    const bool is_here = beat.place.group == place.group && beat.place.number == place.number;
    if (is_here && beat.place.kind != place.kind)
      findings.push_back(
          join("rank ", member, " is in ", describe(beat.place), ": the ranks do not do the same steps"));
    else if (number < place.number)
      findings.push_back(other_work(member, beat));
  }
  // A member that waits in another collective waits for somebody there: the chain begins at a rank that waits for
  // nobody.
  for (int64_t other = 0; other < static_cast<int64_t>(ranks.size()) && findings.size() < kMostNamed; ++other)
    if (std::find(members.begin(), members.end(), other) == members.end() && ranks[other].beat.place.kind.empty())
      findings.push_back(other_work(other, ranks[other].beat));
  if (findings.empty()) return "all of its ranks are alive and have come to it: the connections between them fail";
  std::string text;
  for (const auto& finding : findings) text += (text.empty() ? "" : "; ") + finding;
  return text;
}

}  // namespace switchyard
