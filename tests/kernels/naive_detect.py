"""Slow, obvious twin of `kernels.detect`: one object a particle, explicit weights, no tricks."""

from __future__ import annotations

import math
from statistics import median

import numpy as np

from kernels import detect as K


def naive_explain(history, level, slope, memory, scale, steepness):
    """`history`: the frames the line has seen, oldest first, NaN where there was none."""
    age = len(history)
    back = np.arange(age - 1, -1, -1)
    d = history - (level - slope * (back + 1))
    seen = ~np.isnan(d)
    d, back = d[seen], back[seen]
    if d.size == 0:
        return K.PENDING, 0, 0.0, 0
    gain = {"step": 0.0, "short": 0.0, "smooth": 0.0, "spike": max(d**2)}
    step = (0, 0.0, 0)
    for k in sorted(back):
        after = d[back <= k]
        n = after.size
        flat = after.sum() ** 2 / n
        if n < K.SHORTEST:
            gain["short"] = max(gain["short"], flat)
            continue
        if d.size - n < K.BEFORE or n > max(K.OLDEST * memory, K.SHORTEST + 2):
            gain["smooth"] = max(gain["smooth"], flat)
        elif flat > gain["step"]:
            gain["step"] = flat
            step = (int(k) + 1, after.mean(), n)
        w = (k + 1.0 - back)[back <= k]
        gain["smooth"] = max(gain["smooth"], (w @ after) ** 2 / (w @ w + 1 / steepness))
        gain["smooth"] = max(gain["smooth"], (w**2 @ after) ** 2 / ((w**2) @ (w**2) + K.CURVE_FRAMES**2 / steepness))
    if d.size >= K.SHORTEST:
        fitted = np.polyval(np.polyfit(back.astype(float), d, 1), back)
        gain["smooth"] = max(gain["smooth"], fitted @ fitted)
    other = max(gain["spike"], gain["smooth"])
    margin = (gain["step"] - other) / scale**2
    if margin > K.MARGIN + K.MARGIN_A_FRAME * max(step[2] - K.LONG, 0) and gain["step"] > gain["short"]:
        return (K.STEP, *step)
    if margin < -K.REJECT and gain["short"] < other:
        return (K.SPIKE if gain["spike"] > gain["smooth"] else K.SMOOTH, *step)
    return (K.PENDING, *step)


class NaiveParticle:
    def __init__(self):
        self.scatter = K.FIRST_SCALE
        self.block_scatter = 1.0
        self.forget()

    def forget(self):
        self.begin(0.0, 0.0, 0.0, [])

    def begin(self, level, slope, memory, seen):
        self.level, self.slope, self.memory = level, slope, memory
        self.seen = list(seen)  # one entry a frame since the line began
        self.lag = 0.0
        self.block: list[float] = []
        self.rise = [0.0] * K.BANKS
        self.fall = [0.0] * K.BANKS
        self.missing = 0

    def doubt(self):
        return max(1.0, self.scatter, K.BLOCK_SHARE * self.block_scatter)

    def remember(self, value):
        self.seen = [*self.seen, value][-K.HISTORY :]

    def gap(self):
        if not self.seen:
            return
        self.remember(math.nan)
        self.missing += 1
        self.level += self.slope
        if self.missing > self.memory:
            self.forget()

    def follow(self, innovation, noise, thresholds):
        """The statistic above its threshold, or 0."""
        if not self.seen:
            self.begin(self.level + innovation, 0.0, 1.0, [self.level + innovation])
            return 0.0
        self.remember(self.level + innovation)
        if self.missing:
            x = self.missing / self.memory
            self.memory = max(self.memory / (1 + 3 * x + 3 * x**2), 1.0)
            self.missing = 0
        memory, alarm, highest = self.memory, 0.0, 0.0
        if memory >= K.MEMORY_MIN:
            ratio = innovation / (noise * math.sqrt(1 + 4 / memory))
            alarm, highest = self.cumulate(ratio, thresholds)
            if highest <= K.COAST_ABOVE:
                self.learn(ratio)
                memory = self.memory
            most = K.CLIP * noise * self.doubt()
            innovation = float(np.clip(innovation, -most, most))
        if highest <= K.COAST_ABOVE:
            self.level += 2 * (2 * memory + 1) / ((memory + 1) * (memory + 2)) * innovation
            self.slope += 6 / ((memory + 1) * (memory + 2)) * innovation
            self.memory = min(memory + 1, K.MEMORY_MAX)
        self.level += self.slope
        return alarm

    def cumulate(self, ratio, thresholds):
        u = float(np.clip(ratio / self.doubt(), -K.CLIP, K.CLIP))
        alarm = highest = 0.0
        for j, step in enumerate(K.DESIGN_STEPS):
            self.rise[j] = max(0.0, self.rise[j] + step * (u - step / 2))
            self.fall[j] = max(0.0, self.fall[j] + step * (-u - step / 2))
            larger = max(self.rise[j], self.fall[j])
            highest = max(highest, larger)
            if larger > thresholds[j]:
                alarm = max(alarm, larger)
        return alarm, highest

    def learn(self, ratio):
        bounded = float(np.clip(ratio, -4, 4))
        self.scatter += K.SCALE_RATE * (abs(bounded) / K.MEAN_ABS - self.scatter)
        self.block.append(bounded)
        if len(self.block) == K.BLOCK:
            ratio_of_sum = min(abs(sum(self.block)) / math.sqrt(K.BLOCK), 4.0)
            self.block_scatter += K.BLOCK_RATE * (ratio_of_sum / K.MEAN_ABS - self.block_scatter)
            self.block = []
        self.lag += 4 / self.memory * (bounded - self.lag)
        if abs(self.lag) > K.LAG_SIGMAS * math.sqrt(2 / self.memory):
            self.lag = 0.0
            self.memory = max(K.SHORTEN * self.memory, K.MEMORY_MIN)

    def likelihood_ratio(self, mean, after):
        # the line's own value and slope have the variances 4/n and 12/n**3, their covariance is 6/n**2
        ahead, n = after / 2, self.memory
        of_line = 4 / n + 2 * ahead * 6 / n**2 + ahead**2 * 12 / n**3
        return mean**2 / (1 / after + of_line) / 2

    def judge(self, noise, steepness, least):
        """(frames since onset, step, its sigma), or None."""
        scale = noise * self.doubt()
        verdict, onset, mean, after = naive_explain(
            np.array(self.seen), self.level, self.slope, self.memory, scale, steepness
        )
        if verdict == K.STEP and self.likelihood_ratio(mean / scale, after) <= least:
            return None
        if verdict == K.STEP:
            sigma = scale * math.sqrt(1 / after + 4 / self.memory)
            self.begin(
                self.level + mean, self.slope, max(float(after), min(4.0 * after, self.memory)), self.seen[-onset:]
            )
            return onset, mean, sigma
        if verdict == K.SPIKE:
            self.rise, self.fall = [0.0] * K.BANKS, [0.0] * K.BANKS
        elif verdict == K.SMOOTH:
            last = np.array(self.seen[-int(K.MEMORY_MIN) :])
            x = np.arange(1 - len(last), 1)[~np.isnan(last)]
            if len(x) < 2:
                self.forget()
                return None
            slope, level = np.polyfit(x, last[~np.isnan(last)], 1)
            self.begin(level + slope, slope, float(len(x)), last)
        return None


class NaiveDetector:
    def __init__(self, particles, thresholds):
        self.thresholds = thresholds
        self.particle = [NaiveParticle() for _ in range(particles)]
        self.scene, self.steepness, self.now = 1.0, K.FIRST_STEEPNESS, 0

    def frame(self, contrast, sigma, skip):
        """[(particle, frames since onset, step, its sigma, statistic)]"""
        usable = [
            not left_out and math.isfinite(s) and s > 0 and abs(c) < K.LARGEST
            for c, s, left_out in zip(contrast, sigma, skip, strict=True)
        ]
        self.find_scene(contrast, usable)
        if self.now % K.SLOPE_EVERY == 0:
            self.level_slopes()
            self.learn_steepness(sigma)
        self.now += 1
        alarms = []
        for i, p in enumerate(self.particle):
            if not usable[i]:
                p.gap()
                continue
            noise = sigma[i] / self.scene
            innovation = (1 + contrast[i]) / self.scene - 1 - p.level
            statistic = p.follow(innovation, noise, self.thresholds)
            step = p.judge(noise, self.steepness, self.thresholds[0]) if statistic > 0 else None
            if step:
                onset, mean, error = step
                alarms.append((i, onset, mean * self.scene, error * self.scene, statistic))
        return alarms

    def find_scene(self, contrast, usable):
        stride = 1 + len(self.particle) // K.COMMON_ENOUGH
        ratios = [
            (1 + contrast[i]) / (1 + p.level)
            for i, p in enumerate(self.particle)
            if i % stride == 0 and usable[i] and p.seen and 1 + p.level > 0.05
        ]
        if len(ratios) >= K.COMMON_LEAST and 0.05 < median(ratios) < 20:
            self.scene = median(ratios)

    def level_slopes(self):
        slopes = [p.slope / (1 + p.level) for p in self.particle if p.memory >= 2 and 1 + p.level > 0.05]
        if len(slopes) >= K.COMMON_LEAST:
            for p in self.particle:
                p.slope -= median(slopes) * (1 + p.level)

    def learn_steepness(self, sigma):
        squares = []
        for p, s in zip(self.particle, sigma, strict=True):
            if p.memory >= K.MEMORY_MIN and s > 0:
                squares.append(max((p.slope * self.scene / s) ** 2 - K.SLOPE_NOISE / p.memory**3, 0.0))
        mean = K.SLOPE_TAIL * (sum(squares) - max(squares)) / len(squares) if squares else 0.0
        self.steepness = max(self.steepness * K.SLOPE_KEPT, min(mean, K.STEEPEST), K.FIRST_STEEPNESS)
