#include "nn/tower_cache.h"

#include <map>
#include <mutex>
#include <sstream>
#include <string>

#include "nn/checkpoint_parameters.h"

namespace siglip2 {
namespace {

template <typename Tower>
class TowerCache {
 public:
  template <typename Load>
  std::shared_ptr<const Tower> share(const std::string& key, Load&& load) {
    // Held while loading: a second request for the same tower waits for the first instead of loading twice.
    const std::lock_guard<std::mutex> lock(mutex_);
    std::erase_if(towers_, [](const auto& entry) { return entry.second.expired(); });
    if (const auto found = towers_.find(key); found != towers_.end())
      if (std::shared_ptr<const Tower> tower = found->second.lock()) return tower;
    std::shared_ptr<const Tower> tower = load();
    towers_[key] = tower;
    return tower;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<const Tower>> towers_;
};

std::string key_of(const EncoderSize& size) {
  std::ostringstream key;
  key << size.width << ',' << size.layers << ',' << size.heads << ',' << size.intermediate << ',' << size.epsilon
      << ',';
  return key.str();
}

// Never destroyed: the executor may still be loading while the process exits.
template <typename Tower>
TowerCache<Tower>& cache() {
  static auto* const instance = new TowerCache<Tower>;
  return *instance;
}

}  // namespace

std::shared_ptr<const VisionTower> share_vision_tower(const VisionConfig& config, Device& device, DType type,
                                                      const std::shared_ptr<const Checkpoint>& checkpoint, int threads,
                                                      const std::shared_ptr<const CancelToken>& cancel) {
  std::ostringstream key;
  key << device.name() << '|' << name_of(type) << '|' << checkpoint->identity() << '|' << key_of(config.encoder)
      << config.patch_size << ',' << config.grid << ',' << config.fixed_resolution << config.has_head;
  return cache<VisionTower>().share(key.str(), [&] {
    return std::make_shared<const VisionTower>(
        config, std::make_shared<CheckpointParameters>(device, type, checkpoint, threads, cancel));
  });
}

std::shared_ptr<const TextTower> share_text_tower(const TextConfig& config, Device& device, DType type,
                                                  const std::shared_ptr<const Checkpoint>& checkpoint, int threads,
                                                  const std::shared_ptr<const CancelToken>& cancel) {
  std::ostringstream key;
  key << device.name() << '|' << name_of(type) << '|' << checkpoint->identity() << '|' << key_of(config.encoder)
      << config.vocabulary << ',' << config.positions << ',' << config.projection;
  return cache<TextTower>().share(key.str(), [&] {
    return std::make_shared<const TextTower>(
        config, std::make_shared<CheckpointParameters>(device, type, checkpoint, threads, cancel));
  });
}

}  // namespace siglip2
