"""What is to be made of the frames at hand, and with which calibrations: functions of what they are given."""
